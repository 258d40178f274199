"""What a worker is told by signals, beside SIGTERM (drain) and SIGUSR1 (look now)."""

import signal

#: End the replicas now. A second SIGTERM does not say so: a service manager signals a worker beside who keeps it, who passes its own signal on.
HURRY = signal.SIGUSR2
