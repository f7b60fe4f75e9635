"""The command `flaneur`: one module per sub-command, holding arguments, progress and printing only."""
