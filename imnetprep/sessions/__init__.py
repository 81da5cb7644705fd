"""A command in a window that outlives the terminal: its log, its state and its exit code.

screen and tmux only show it. What is certain comes from the wrapper in the window: it holds a lock
for as long as it lives, writes the log at once, and the exit code whole.
"""
