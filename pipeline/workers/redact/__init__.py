"""Redaction on the server, whatever the client did: pure, event by event, counted by kind and method, values never told.

Covered so far: typed values of password fields and of fields whose name gives them away, and such keys in submitted forms.
Patterns in free text, snapshots, URLs and rrweb's events come with the rule file.
"""
