"""Quantizers whose weights another library computes, or has computed already."""
