/* What the parts of the example share. */
#include <inttypes.h>
#include <librdkafka/rdkafka.h>

enum { CODECS = 5, PER_CODEC = 6, PARTITIONS = 2, TIMEOUT_MS = 6000 };

extern const char *addr, *topic;

/* die ends the program; check does if there is an error. */
void die(const char *what, const char *why);
void check(const char *what, rd_kafka_resp_err_t err);

int64_t now_ms(void);

/* new_client makes a producer or consumer; names and values alternate, up to NULL. */
rd_kafka_t *new_client(rd_kafka_type_t type, void (*delivered)(rd_kafka_t *, const rd_kafka_message_t *, void *), ...);

/* wait_for returns the result of an administrative request. */
rd_kafka_event_t *wait_for(const char *what, rd_kafka_queue_t *q);

rd_kafka_topic_partition_list_t *each_partition(int64_t offset);

/* read_records prints so many records, which are there. */
void read_records(rd_kafka_t *rk, const char *step, int want, int64_t limit_ms);

/* groups has members of consumer groups come and go, and administers groups. */
void groups(rd_kafka_t *admin, rd_kafka_queue_t *q);
