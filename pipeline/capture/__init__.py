"""The HTTP front. `formats` and `bodies` decode purely, `server` reads requests, produces, and answers.

Every request ends admitted (200, after Kafka's ack) or refused with one reason from the error tree.
"""
