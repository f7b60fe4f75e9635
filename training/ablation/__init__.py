"""The paper's ablation at pocket size."""
