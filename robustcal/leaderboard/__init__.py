"""Numbers for others: runs packed into submissions, submissions shown as a static site, trained models put on a hub."""
