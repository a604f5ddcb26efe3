"""The processes that train one model together: who they are, how they start, agree and end."""
