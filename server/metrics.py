"""Prometheus metrics of this process."""

from prometheus_client import Counter, Gauge

OPEN_STREAMS = Gauge("tidemark_open_streams", "Event streams that are open in this web process.")
OPEN_FEEDS = Gauge("tidemark_open_feeds", "Answers that are followed in this web process.")
TASKS = Gauge("tidemark_tasks", "Tasks that run in this web process.")
REQUESTS_FAILED = Counter("tidemark_faults_total", "Requests that failed with an internal error.")
GENERATIONS = Counter("tidemark_generations_total", "Answers that this worker settled.", ["status"])
EVENTS_APPENDED = Counter(
    "tidemark_events_appended_total", "Events that this worker wrote to logs."
)
LOG_LOSSES = Counter(
    "tidemark_log_connection_losses_total", "Times this worker lost its connection to the logs."
)
TAKEOVERS = Counter(
    "tidemark_takeovers_total", "Answers this worker took over from a dead owner, or was handed."
)
POOL_TIMEOUTS = Counter(
    "tidemark_database_pool_timeouts_total",
    "Transactions that waited in vain for a connection of this process.",
)
CONNECTIONS_REFUSED = Counter(
    "tidemark_database_connections_refused_total",
    "Connections that PostgreSQL refused, because it has no more.",
)
