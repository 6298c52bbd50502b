/* The part of the example that is about consumer groups. */
#include "example.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SENT = CODECS * PER_CODEC, GROUP_MS = 15000 };

/* join makes a member of a group that begins at the beginning of the topic. */
static rd_kafka_t *join(const char *group, const char *protocol) {
        int classic = !strcmp(protocol, "classic"); /* else the server says how often it wants to hear of members */
        rd_kafka_t *rk = new_client(RD_KAFKA_CONSUMER, NULL, "group.id", group, "enable.auto.commit", "false",
                                    "auto.offset.reset", "earliest", "group.protocol", protocol,
                                    classic ? "heartbeat.interval.ms" : NULL, "200", NULL);
        rd_kafka_poll_set_consumer(rk);
        rd_kafka_topic_partition_list_t *topics = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(topics, topic, RD_KAFKA_PARTITION_UA);
        check("subscribe", rd_kafka_subscribe(rk, topics));
        rd_kafka_topic_partition_list_destroy(topics);
        return rk;
}

static void leave(rd_kafka_t *rk) {
        check("leave", rd_kafka_consumer_close(rk));
        rd_kafka_destroy(rk);
}

/* assigned returns what a member has. */
static rd_kafka_topic_partition_list_t *assigned(rd_kafka_t *rk) {
        rd_kafka_topic_partition_list_t *list;
        check("assignment", rd_kafka_assignment(rk, &list));
        rd_kafka_topic_partition_list_sort(list, NULL, NULL);
        return list;
}

static int has(rd_kafka_t *rk, int want) {
        rd_kafka_topic_partition_list_t *list = assigned(rk);
        int count = list->cnt;
        rd_kafka_topic_partition_list_destroy(list);
        return count == want;
}

static void print_partitions(const rd_kafka_topic_partition_list_t *list) {
        printf("[");
        for (int i = 0; list && i < list->cnt; i++)
                printf("%s%d", i ? "," : "", list->elems[i].partition);
        printf("]");
}

/* share polls the members, so that they take part, until each has so many
 * partitions, and prints which. */
static void share(const char *step, rd_kafka_t **members, int n, int want) {
        int64_t deadline = now_ms() + GROUP_MS;
        for (int ready = 0; ready < n;) {
                if (now_ms() > deadline)
                        die(step, "members of a group wait in vain for their partitions");
                ready = 0;
                for (int i = 0; i < n; i++) {
                        rd_kafka_message_t *m = rd_kafka_consumer_poll(members[i], 50);
                        if (m)
                                rd_kafka_message_destroy(m);
                        ready += has(members[i], want);
                }
        }
        printf("{\"step\":\"%s\",\"members\":[", step);
        for (int i = 0; i < n; i++) {
                rd_kafka_topic_partition_list_t *list = assigned(members[i]);
                printf("%s", i ? "," : "");
                print_partitions(list);
                rd_kafka_topic_partition_list_destroy(list);
        }
        printf("]}\n");
}

/* group_error dies if a group's answer is an error. */
static void group_error(const char *what, const rd_kafka_error_t *err) {
        if (err)
                die(what, rd_kafka_error_string(err));
}

/* list_groups tells whether there is a group, and prints all if that is asked for. */
static int list_groups(rd_kafka_t *rk, rd_kafka_queue_t *q, const char *group, int print) {
        rd_kafka_ListConsumerGroups(rk, NULL, q);
        rd_kafka_event_t *ev = wait_for("ListConsumerGroups", q);
        size_t n;
        int exists = 0;
        const rd_kafka_ConsumerGroupListing_t **groups =
            rd_kafka_ListConsumerGroups_result_valid(rd_kafka_event_ListConsumerGroups_result(ev), &n);
        const char *state = "";
        if (print)
                printf("{\"step\":\"groups\",\"groups\":[");
        for (size_t i = 0; i < n; i++) {
                const char *id = rd_kafka_ConsumerGroupListing_group_id(groups[i]);
                if (print)
                        printf("%s\"%s\"", i ? "," : "", id);
                if (!strcmp(id, group)) {
                        exists = 1;
                        state = rd_kafka_consumer_group_state_name(rd_kafka_ConsumerGroupListing_state(groups[i]));
                }
        }
        if (print)
                printf("],\"state\":\"%s\"}\n", state);
        rd_kafka_event_destroy(ev);
        return exists;
}

static void describe_group(rd_kafka_t *rk, rd_kafka_queue_t *q, const char *group) {
        rd_kafka_DescribeConsumerGroups(rk, &group, 1, NULL, q);
        rd_kafka_event_t *ev = wait_for("DescribeConsumerGroups", q);
        size_t n;
        const rd_kafka_ConsumerGroupDescription_t **groups =
            rd_kafka_DescribeConsumerGroups_result_groups(rd_kafka_event_DescribeConsumerGroups_result(ev), &n);
        if (n != 1)
                die("DescribeConsumerGroups", "the group is missing");
        const rd_kafka_ConsumerGroupDescription_t *g = groups[0];
        group_error("DescribeConsumerGroups", rd_kafka_ConsumerGroupDescription_error(g));
        printf("{\"step\":\"described-group\",\"group\":\"%s\",\"state\":\"%s\",\"protocol\":\"%s\",\"members\":[",
               rd_kafka_ConsumerGroupDescription_group_id(g),
               rd_kafka_consumer_group_state_name(rd_kafka_ConsumerGroupDescription_state(g)),
               rd_kafka_ConsumerGroupDescription_partition_assignor(g));
        for (size_t i = 0; i < rd_kafka_ConsumerGroupDescription_member_count(g); i++) {
                const rd_kafka_MemberAssignment_t *a =
                    rd_kafka_MemberDescription_assignment(rd_kafka_ConsumerGroupDescription_member(g, i));
                printf("%s", i ? "," : "");
                print_partitions(a ? rd_kafka_MemberAssignment_partitions(a) : NULL);
        }
        printf("]}\n");
        rd_kafka_event_destroy(ev);
}

/* classic has members come and go, and looks at their group. */
static void classic(rd_kafka_t *admin, rd_kafka_queue_t *q) {
        char group[256];
        snprintf(group, sizeof(group), "%s-group", topic);
        rd_kafka_t *members[2] = {join(group, "classic")};
        read_records(members[0], "group-consumed", SENT, GROUP_MS);
        check("commit", rd_kafka_commit(members[0], NULL, 0));
        rd_kafka_topic_partition_list_t *list = each_partition(RD_KAFKA_OFFSET_INVALID);
        check("committed", rd_kafka_committed(members[0], list, TIMEOUT_MS));
        for (int i = 0; i < list->cnt; i++)
                printf("{\"step\":\"committed\",\"partition\":%" PRId32 ",\"offset\":%" PRId64 "}\n",
                       list->elems[i].partition, list->elems[i].offset);
        rd_kafka_topic_partition_list_destroy(list);

        members[1] = join(group, "classic");
        share("group-shared", members, 2, 1);
        list_groups(admin, q, group, 1);
        describe_group(admin, q, group);
        leave(members[1]);
        share("group-left", members, 1, 2);
        leave(members[0]);
}

/* server_assigned has a member of a group whose partitions the server assigns
 * (KIP-848). */
static void server_assigned(void) {
        char group[256];
        snprintf(group, sizeof(group), "%s-group-assigned", topic);
        rd_kafka_t *rk = join(group, "consumer");
        read_records(rk, "assigned-consumed", SENT, GROUP_MS);
        leave(rk);
}

/* commit_first commits offset 1 of each partition for a group without members. */
static void commit_first(rd_kafka_t *rk, rd_kafka_queue_t *q, const char *group) {
        rd_kafka_topic_partition_list_t *list = each_partition(1);
        rd_kafka_AlterConsumerGroupOffsets_t *a = rd_kafka_AlterConsumerGroupOffsets_new(group, list);
        rd_kafka_AlterConsumerGroupOffsets(rk, &a, 1, NULL, q);
        rd_kafka_event_destroy(wait_for("AlterConsumerGroupOffsets", q));
        rd_kafka_AlterConsumerGroupOffsets_destroy(a);
        rd_kafka_topic_partition_list_destroy(list);
}

/* show_offsets prints what a group has committed. */
static void show_offsets(rd_kafka_t *rk, rd_kafka_queue_t *q, const char *group, const char *step) {
        rd_kafka_ListConsumerGroupOffsets_t *l = rd_kafka_ListConsumerGroupOffsets_new(group, NULL);
        rd_kafka_ListConsumerGroupOffsets(rk, &l, 1, NULL, q);
        rd_kafka_event_t *ev = wait_for("ListConsumerGroupOffsets", q);
        size_t n;
        const rd_kafka_group_result_t **results =
            rd_kafka_ListConsumerGroupOffsets_result_groups(rd_kafka_event_ListConsumerGroupOffsets_result(ev), &n);
        for (size_t i = 0; i < n; i++) {
                group_error("ListConsumerGroupOffsets", rd_kafka_group_result_error(results[i]));
                const rd_kafka_topic_partition_list_t *list = rd_kafka_group_result_partitions(results[i]);
                for (int j = 0; list && j < list->cnt; j++)
                        printf("{\"step\":\"%s\",\"partition\":%" PRId32 ",\"offset\":%" PRId64 "}\n", step,
                               list->elems[j].partition, list->elems[j].offset);
        }
        rd_kafka_event_destroy(ev);
        rd_kafka_ListConsumerGroupOffsets_destroy(l);
}

/* delete_group makes a group of offsets alone, and deletes one of them, and it. */
static void delete_group(rd_kafka_t *rk, rd_kafka_queue_t *q) {
        char group[256];
        snprintf(group, sizeof(group), "%s-group-scratch", topic);
        commit_first(rk, q, group);

        rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
        rd_kafka_topic_partition_list_add(list, topic, 1);
        rd_kafka_DeleteConsumerGroupOffsets_t *o = rd_kafka_DeleteConsumerGroupOffsets_new(group, list);
        rd_kafka_DeleteConsumerGroupOffsets(rk, &o, 1, NULL, q);
        rd_kafka_event_destroy(wait_for("DeleteConsumerGroupOffsets", q));
        rd_kafka_DeleteConsumerGroupOffsets_destroy(o);
        rd_kafka_topic_partition_list_destroy(list);
        show_offsets(rk, q, group, "offsets-left");

        rd_kafka_DeleteGroup_t *d = rd_kafka_DeleteGroup_new(group);
        rd_kafka_DeleteGroups(rk, &d, 1, NULL, q);
        rd_kafka_event_destroy(wait_for("DeleteGroups", q));
        rd_kafka_DeleteGroup_destroy(d);
        printf("{\"step\":\"delete-group\",\"group\":\"%s\",\"exists\":%s}\n", group,
               list_groups(rk, q, group, 0) ? "true" : "false");
}

void groups(rd_kafka_t *admin, rd_kafka_queue_t *q) {
        classic(admin, q);
        delete_group(admin, q);
        server_assigned();
}
