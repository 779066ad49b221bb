"""A polite crawler: gather.py makes the rows, crawl.py walks, frontier.py remembers, judge.py decides."""
