"""Between real vectors and ring elements: the codec, shaping before it, clipping norms."""
