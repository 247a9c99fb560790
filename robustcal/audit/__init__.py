"""Runs that others can check: records drawn and made again, tables and derived numbers compared, what follows said."""
