"""robustcal: how accurate, and how honest about its confidence, is a zero-shot CLIP classifier under attack?"""

__version__ = "0.1.0"
