/* Uses a Flotilla node through librdkafka: makes a topic, produces with each
 * compression, reads everything back by assignment and as members of groups, and
 * administers. What it saw goes to standard output, one JSON object a line.
 *
 *   ./example 127.0.0.1:9092 greetings
 *
 * It leaves the topic behind; a second run needs another name. */
#include "example.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

static const char *const codecs[CODECS] = {"none", "gzip", "snappy", "lz4", "zstd"};
static const char *const shown_configs[] = {"max.message.bytes", "retention.ms", "retention.bytes"};

const char *addr, *topic;
static int64_t middle_ms; /* the timestamp of a record in the middle */
static int failed_deliveries;

void die(const char *what, const char *why) {
        fprintf(stderr, "librdkafka: %s: %s\n", what, why);
        exit(1);
}

void check(const char *what, rd_kafka_resp_err_t err) {
        if (err)
                die(what, rd_kafka_err2str(err));
}

int64_t now_ms(void) {
        struct timeval tv;
        gettimeofday(&tv, NULL);
        return (int64_t)tv.tv_sec * 1000 + tv.tv_usec / 1000;
}

rd_kafka_t *new_client(rd_kafka_type_t type, void (*delivered)(rd_kafka_t *, const rd_kafka_message_t *, void *), ...) {
        char why[256];
        rd_kafka_conf_t *conf = rd_kafka_conf_new();
        va_list args;
        const char *name;

        if (rd_kafka_conf_set(conf, "bootstrap.servers", addr, why, sizeof(why)))
                die("bootstrap.servers", why);
        if (rd_kafka_conf_set(conf, "log_level", "0", why, sizeof(why)))
                die("log_level", why);
        va_start(args, delivered);
        while ((name = va_arg(args, const char *)))
                if (rd_kafka_conf_set(conf, name, va_arg(args, const char *), why, sizeof(why)))
                        die(name, why);
        va_end(args);
        if (delivered)
                rd_kafka_conf_set_dr_msg_cb(conf, delivered);
        rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof(why));
        if (!rk)
                die("rd_kafka_new", why);
        return rk;
}

rd_kafka_event_t *wait_for(const char *what, rd_kafka_queue_t *q) {
        rd_kafka_event_t *ev = rd_kafka_queue_poll(q, TIMEOUT_MS);
        if (!ev)
                die(what, "time is up");
        if (rd_kafka_event_error(ev))
                die(what, rd_kafka_event_error_string(ev));
        return ev;
}

/* created checks the answers to a request that creates or deletes topics, and
 * returns how many there are. */
static size_t created(const char *what, const rd_kafka_topic_result_t **results, size_t n) {
        for (size_t i = 0; i < n; i++)
                if (rd_kafka_topic_result_error(results[i]))
                        die(what, rd_kafka_topic_result_error_string(results[i]));
        return n;
}

static void create_topic(rd_kafka_t *rk, rd_kafka_queue_t *q, const char *name, int partitions) {
        char why[256];
        rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(name, partitions, 1, why, sizeof(why));
        if (!t)
                die("NewTopic", why);
        check("max.message.bytes", rd_kafka_NewTopic_set_config(t, "max.message.bytes", "2000000"));
        rd_kafka_CreateTopics(rk, &t, 1, NULL, q);
        rd_kafka_event_t *ev = wait_for("CreateTopics", q);
        size_t n;
        const rd_kafka_topic_result_t **results =
            rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &n);
        if (created("CreateTopics", results, n) == 1 && !strcmp(name, topic))
                printf("{\"step\":\"create-topic\",\"topic\":\"%s\"}\n", rd_kafka_topic_result_name(results[0]));
        rd_kafka_event_destroy(ev);
        rd_kafka_NewTopic_destroy(t);
}

/* base64 writes a topic id as Kafka's other clients do. */
static const char *base64(const rd_kafka_Uuid_t *id) {
        static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        static char out[25];
        unsigned char raw[18] = {0};
        uint64_t half[2] = {(uint64_t)rd_kafka_Uuid_most_significant_bits(id),
                            (uint64_t)rd_kafka_Uuid_least_significant_bits(id)};
        for (int i = 0; i < 16; i++)
                raw[i] = (unsigned char)(half[i / 8] >> (56 - 8 * (i % 8)));
        for (int i = 0; i < 24; i++) {
                unsigned bits = raw[i / 4 * 3] << 16 | raw[i / 4 * 3 + 1] << 8 | raw[i / 4 * 3 + 2];
                out[i] = digits[bits >> (18 - 6 * (i % 4)) & 63];
        }
        out[22] = out[23] = '=';
        return out;
}

/* describe_topic prints what metadata says of the topic, or only counts its
 * partitions. */
static size_t describe_topic(rd_kafka_t *rk, rd_kafka_queue_t *q, int print) {
        const char *names[] = {topic};
        rd_kafka_TopicCollection_t *asked = rd_kafka_TopicCollection_of_topic_names(names, 1);
        rd_kafka_DescribeTopics(rk, asked, NULL, q);
        rd_kafka_event_t *ev = wait_for("DescribeTopics", q);
        size_t n, partitions;
        const rd_kafka_TopicDescription_t **topics =
            rd_kafka_DescribeTopics_result_topics(rd_kafka_event_DescribeTopics_result(ev), &n);
        if (n != 1)
                die("DescribeTopics", "the topic is missing");
        const rd_kafka_error_t *err = rd_kafka_TopicDescription_error(topics[0]);
        if (err)
                die("DescribeTopics", rd_kafka_error_string(err));
        const rd_kafka_TopicPartitionInfo_t **infos = rd_kafka_TopicDescription_partitions(topics[0], &partitions);
        if (print) {
                printf("{\"step\":\"metadata\",\"topic\":\"%s\",\"topic_id\":\"%s\",\"leaders\":[",
                       rd_kafka_TopicDescription_name(topics[0]), base64(rd_kafka_TopicDescription_topic_id(topics[0])));
                for (size_t i = 0; i < partitions; i++) {
                        const rd_kafka_Node_t *leader = rd_kafka_TopicPartitionInfo_leader(infos[i]);
                        printf("%s%d", i ? "," : "", leader ? rd_kafka_Node_id(leader) : -1);
                }
                rd_kafka_DescribeCluster(rk, NULL, q);
                rd_kafka_event_t *cluster = wait_for("DescribeCluster", q);
                const rd_kafka_Node_t **nodes =
                    rd_kafka_DescribeCluster_result_nodes(rd_kafka_event_DescribeCluster_result(cluster), &n);
                printf("],\"brokers\":[");
                for (size_t i = 0; i < n; i++)
                        printf("%s\"%s:%d\"", i ? "," : "", rd_kafka_Node_host(nodes[i]), rd_kafka_Node_port(nodes[i]));
                printf("]}\n");
                rd_kafka_event_destroy(cluster);
        }
        rd_kafka_event_destroy(ev);
        rd_kafka_TopicCollection_destroy(asked);
        return partitions;
}

/* delivered is told what became of each record. */
static void delivered(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque) {
        (void)rk, (void)opaque;
        if (m->err) {
                fprintf(stderr, "librdkafka: produce: %s\n", rd_kafka_message_errstr(m));
                failed_deliveries++;
                return;
        }
        printf("{\"step\":\"produced\",\"codec\":\"%s\",\"key\":\"%.*s\",\"partition\":%" PRId32 ",\"offset\":%" PRId64 "}\n",
               (const char *)m->_private, (int)m->key_len, (const char *)m->key, m->partition, m->offset);
}

/* produce sends keyed records with headers, with an idempotent producer for each
 * compression. */
static void produce(void) {
        int64_t start = now_ms(), sent = 0;
        middle_ms = start + CODECS * PER_CODEC / 2;
        for (int c = 0; c < CODECS; c++) {
                rd_kafka_t *rk = new_client(RD_KAFKA_PRODUCER, delivered, "compression.type", codecs[c],
                                            "enable.idempotence", "true", "delivery.timeout.ms", "6000", NULL);
                for (int i = 0; i < PER_CODEC; i++) {
                        char key[32], value[2048], n[8];
                        snprintf(key, sizeof(key), "%s-%d", codecs[c], i);
                        snprintf(n, sizeof(n), "%d", i);
                        value[0] = 0;
                        for (int j = 0, at = 0; j < 40; j++)
                                at += snprintf(value + at, sizeof(value) - at, "%s record %d. ", codecs[c], i);
                        rd_kafka_headers_t *headers = rd_kafka_headers_new(2);
                        rd_kafka_header_add(headers, "codec", -1, codecs[c], -1);
                        rd_kafka_header_add(headers, "n", -1, n, -1);
                        check("produce", rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_KEY(key, strlen(key)),
                                                           RD_KAFKA_V_VALUE(value, strlen(value)),
                                                           RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                                           RD_KAFKA_V_TIMESTAMP(start + sent++), RD_KAFKA_V_HEADERS(headers),
                                                           RD_KAFKA_V_OPAQUE((void *)codecs[c]), RD_KAFKA_V_END));
                }
                check("flush", rd_kafka_flush(rk, TIMEOUT_MS + 1000));
                rd_kafka_destroy(rk);
                if (failed_deliveries)
                        die("produce", "records were not delivered");
        }
}

rd_kafka_topic_partition_list_t *each_partition(int64_t offset) {
        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(PARTITIONS);
        for (int32_t p = 0; p < PARTITIONS; p++)
                rd_kafka_topic_partition_list_add(list, topic, p)->offset = offset;
        return list;
}

void read_records(rd_kafka_t *rk, const char *step, int want, int64_t limit_ms) {
        int64_t deadline = now_ms() + limit_ms;
        for (int n = 0; n < want;) {
                rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 100);
                if (!m && now_ms() < deadline)
                        continue;
                if (!m)
                        die("consume", "time is up");
                if (m->err)
                        die("consume", rd_kafka_message_errstr(m));
                printf("{\"step\":\"%s\",\"partition\":%" PRId32 ",\"offset\":%" PRId64 ",\"timestamp\":%" PRId64
                       ",\"key\":\"%.*s\",\"value\":\"%.*s\",\"headers\":{",
                       step, m->partition, m->offset, rd_kafka_message_timestamp(m, NULL), (int)m->key_len, (const char *)m->key,
                       (int)m->len, (const char *)m->payload);
                rd_kafka_headers_t *headers;
                const char *name;
                const void *value;
                size_t size;
                if (!rd_kafka_message_headers(m, &headers))
                        for (size_t i = 0; !rd_kafka_header_get_all(headers, i, &name, &value, &size); i++)
                                printf("%s\"%s\":\"%.*s\"", i ? "," : "", name, (int)size, (const char *)value);
                printf("}}\n");
                rd_kafka_message_destroy(m);
                n++;
        }
}

/* consume reads the topic from its beginning, by assignment, and asks where it
 * begins and ends. */
static void consume(void) {
        rd_kafka_t *rk = new_client(RD_KAFKA_CONSUMER, NULL, "group.id", "example", "enable.auto.commit", "false",
                                    "auto.offset.reset", "error", NULL);
        rd_kafka_poll_set_consumer(rk);
        rd_kafka_topic_partition_list_t *list = each_partition(RD_KAFKA_OFFSET_BEGINNING);
        check("assign", rd_kafka_assign(rk, list));
        rd_kafka_topic_partition_list_destroy(list);
        read_records(rk, "consumed", CODECS * PER_CODEC, TIMEOUT_MS);
        rd_kafka_topic_partition_list_t *timed = each_partition(middle_ms);
        check("offsets for times", rd_kafka_offsets_for_times(rk, timed, TIMEOUT_MS));
        for (int32_t p = 0; p < PARTITIONS; p++) {
                int64_t earliest, latest;
                check("watermarks", rd_kafka_query_watermark_offsets(rk, topic, p, &earliest, &latest, TIMEOUT_MS));
                printf("{\"step\":\"offsets\",\"partition\":%" PRId32 ",\"earliest\":%" PRId64 ",\"latest\":%" PRId64
                       ",\"at_ms\":%" PRId64 ",\"at\":%" PRId64 "}\n",
                       p, earliest, latest, middle_ms, timed->elems[p].offset);
        }
        rd_kafka_topic_partition_list_destroy(timed);
        rd_kafka_destroy(rk);
}

static const char *source_name(rd_kafka_ConfigSource_t s) {
        return s == RD_KAFKA_CONFIG_SOURCE_DYNAMIC_TOPIC_CONFIG ? "DYNAMIC_TOPIC_CONFIG"
             : s == RD_KAFKA_CONFIG_SOURCE_DEFAULT_CONFIG       ? "DEFAULT_CONFIG"
                                                                : "OTHER";
}

/* show_configs prints the values, or the sources, of the shown configs. */
static void show_configs(const char *field, const rd_kafka_ConfigEntry_t **entries, size_t n, int sources) {
        printf(",\"%s\":{", field);
        const char *comma = "";
        for (size_t i = 0; i < n; i++)
                for (size_t j = 0; j < sizeof(shown_configs) / sizeof(*shown_configs); j++)
                        if (!strcmp(rd_kafka_ConfigEntry_name(entries[i]), shown_configs[j])) {
                                printf("%s\"%s\":\"%s\"", comma, shown_configs[j],
                                       sources ? source_name(rd_kafka_ConfigEntry_source(entries[i]))
                                               : rd_kafka_ConfigEntry_value(entries[i]));
                                comma = ",";
                        }
        printf("}");
}

static void describe_configs(rd_kafka_t *rk, rd_kafka_queue_t *q, const char *step) {
        rd_kafka_ConfigResource_t *r = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
        rd_kafka_DescribeConfigs(rk, &r, 1, NULL, q);
        rd_kafka_event_t *ev = wait_for("DescribeConfigs", q);
        size_t n;
        const rd_kafka_ConfigResource_t **resources =
            rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(ev), &n);
        if (n != 1)
                die("DescribeConfigs", "the topic is missing");
        check("DescribeConfigs", rd_kafka_ConfigResource_error(resources[0]));
        const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resources[0], &n);
        printf("{\"step\":\"%s\"", step);
        show_configs("configs", entries, n, 0);
        show_configs("sources", entries, n, 1);
        printf("}\n");
        rd_kafka_event_destroy(ev);
        rd_kafka_ConfigResource_destroy(r);
}

/* configs changes configs by each of the two requests for that. */
static void configs(rd_kafka_t *rk, rd_kafka_queue_t *q) {
        describe_configs(rk, q, "configs");
        /* The old request replaces all that is set: max.message.bytes falls back. */
        rd_kafka_ConfigResource_t *r = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
        check("retention.bytes", rd_kafka_ConfigResource_set_config(r, "retention.bytes", "100000000"));
        rd_kafka_AlterConfigs(rk, &r, 1, NULL, q);
        rd_kafka_event_t *ev = wait_for("AlterConfigs", q);
        size_t n;
        const rd_kafka_ConfigResource_t **resources =
            rd_kafka_AlterConfigs_result_resources(rd_kafka_event_AlterConfigs_result(ev), &n);
        for (size_t i = 0; i < n; i++)
                check("AlterConfigs", rd_kafka_ConfigResource_error(resources[i]));
        rd_kafka_event_destroy(ev);
        rd_kafka_ConfigResource_destroy(r);

        r = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic);
        if (rd_kafka_ConfigResource_add_incremental_config(r, "retention.ms", RD_KAFKA_ALTER_CONFIG_OP_TYPE_SET, "3600000"))
                die("retention.ms", "was not taken");
        rd_kafka_IncrementalAlterConfigs(rk, &r, 1, NULL, q);
        ev = wait_for("IncrementalAlterConfigs", q);
        resources = rd_kafka_IncrementalAlterConfigs_result_resources(rd_kafka_event_IncrementalAlterConfigs_result(ev), &n);
        for (size_t i = 0; i < n; i++)
                check("IncrementalAlterConfigs", rd_kafka_ConfigResource_error(resources[i]));
        rd_kafka_event_destroy(ev);
        rd_kafka_ConfigResource_destroy(r);
        describe_configs(rk, q, "configs-altered");
}

static void create_partitions(rd_kafka_t *rk, rd_kafka_queue_t *q) {
        char why[256];
        rd_kafka_NewPartitions_t *p = rd_kafka_NewPartitions_new(topic, PARTITIONS + 1, why, sizeof(why));
        if (!p)
                die("NewPartitions", why);
        rd_kafka_CreatePartitions(rk, &p, 1, NULL, q);
        rd_kafka_event_t *ev = wait_for("CreatePartitions", q);
        size_t n;
        const rd_kafka_topic_result_t **results =
            rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(ev), &n);
        created("CreatePartitions", results, n);
        printf("{\"step\":\"create-partitions\",\"partitions\":%zu}\n", describe_topic(rk, q, 0));
        rd_kafka_event_destroy(ev);
        rd_kafka_NewPartitions_destroy(p);
}

/* delete_records deletes the first record of partition 0. */
static void delete_records(rd_kafka_t *rk, rd_kafka_queue_t *q) {
        rd_kafka_topic_partition_list_t *before = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(before, topic, 0)->offset = 1;
        rd_kafka_DeleteRecords_t *d = rd_kafka_DeleteRecords_new(before);
        rd_kafka_DeleteRecords(rk, &d, 1, NULL, q);
        rd_kafka_event_t *ev = wait_for("DeleteRecords", q);
        const rd_kafka_topic_partition_list_t *after =
            rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(ev));
        for (int i = 0; i < after->cnt; i++) {
                check("DeleteRecords", after->elems[i].err);
                printf("{\"step\":\"delete-records\",\"partition\":%" PRId32 ",\"low_watermark\":%" PRId64 "}\n",
                       after->elems[i].partition, after->elems[i].offset);
        }
        rd_kafka_event_destroy(ev);
        rd_kafka_DeleteRecords_destroy(d);
        rd_kafka_topic_partition_list_destroy(before);
}

/* delete_topic deletes a topic that it makes for that. */
static void delete_topic(rd_kafka_t *rk, rd_kafka_queue_t *q) {
        char scratch[256];
        snprintf(scratch, sizeof(scratch), "%s-scratch", topic);
        create_topic(rk, q, scratch, 1);
        rd_kafka_DeleteTopic_t *d = rd_kafka_DeleteTopic_new(scratch);
        rd_kafka_DeleteTopics(rk, &d, 1, NULL, q);
        rd_kafka_event_t *ev = wait_for("DeleteTopics", q);
        size_t n;
        const rd_kafka_topic_result_t **results =
            rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(ev), &n);
        created("DeleteTopics", results, n);
        rd_kafka_event_destroy(ev);
        rd_kafka_DeleteTopic_destroy(d);

        const struct rd_kafka_metadata *all;
        check("metadata", rd_kafka_metadata(rk, 1, NULL, &all, TIMEOUT_MS));
        int exists = 0;
        for (int i = 0; i < all->topic_cnt; i++)
                exists |= !strcmp(all->topics[i].topic, scratch);
        rd_kafka_metadata_destroy(all);
        printf("{\"step\":\"delete-topic\",\"topic\":\"%s\",\"exists\":%s}\n", scratch, exists ? "true" : "false");
}

int main(int argc, char **argv) {
        if (argc != 3) {
                fprintf(stderr, "usage: example HOST:PORT TOPIC\n");
                return 2;
        }
        addr = argv[1], topic = argv[2];
        rd_kafka_t *admin = new_client(RD_KAFKA_PRODUCER, NULL, "socket.timeout.ms", "5000", NULL);
        rd_kafka_queue_t *q = rd_kafka_queue_new(admin);
        create_topic(admin, q, topic, PARTITIONS);
        describe_topic(admin, q, 1);
        produce();
        consume();
        groups(admin, q);
        configs(admin, q);
        create_partitions(admin, q);
        delete_records(admin, q);
        delete_topic(admin, q);
        rd_kafka_queue_destroy(q);
        rd_kafka_destroy(admin);
        return 0;
}
