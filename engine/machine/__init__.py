"""What this machine has and can run: GPUs, installed extras, shipped assets, benchmark."""
