"""Ways to quantize attention, by what they lose; and int8 attention beside float attention, by time."""
