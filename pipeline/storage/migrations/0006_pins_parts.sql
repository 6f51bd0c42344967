-- As in 0003: an erasure removes a session's pin too, and waits until the part that it was in is gone.
ALTER TABLE {database}.pins MODIFY SETTING old_parts_lifetime = 60, max_cleanup_delay_period = 30;
