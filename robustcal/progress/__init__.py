"""What a person sees of a sweep while it works: time left, a bar per worker, plain lines where there is no terminal."""

from .display import Display

__all__ = ["Display"]
