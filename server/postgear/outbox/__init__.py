"""The outbox in MariaDB or MySQL: jobs queued in transactions there, and the relay that moves them into the queue."""
