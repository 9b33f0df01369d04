"""A bundle on the device it is for, reached over ssh: copied, proven and measured there."""
