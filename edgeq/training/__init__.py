"""Training: a student, a teacher, data, and a run that can be killed and resumed."""
