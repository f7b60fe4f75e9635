"""Attention over space and time: gated delta net, softmax, rotary positions, and which frames see which."""
