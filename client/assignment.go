package client

import (
	"fmt"
	"slices"
	"time"
)

// check refuses an assignment that makes no sense.
func (a Assignment) check() error {
	if a.Topic == "" || a.Partition < 0 || a.Offset < Beginning || a.Offset != 0 && !a.From.IsZero() {
		return fmt.Errorf("client: assignment %+v", a)
	}
	return nil
}

// Assign adds partitions: all of them, or, with an error, none. It is an error
// to assign a partition twice.
func (co *Consumer) Assign(assignments ...Assignment) error {
	return co.assign(TopicID{}, assignments...)
}

// assign is Assign of partitions that a Group was given of the topic with an id.
func (co *Consumer) assign(group TopicID, assignments ...Assignment) error {
	co.mu.Lock()
	defer co.mu.Unlock()
	seen := make(map[partitionName]bool, len(assignments))
	for _, a := range assignments {
		if err := a.check(); err != nil {
			return err
		}
		name := partitionName{a.Topic, a.Partition}
		if seen[name] || co.byName[name] != nil {
			return fmt.Errorf("client: %s[%d] is assigned twice", a.Topic, a.Partition)
		}
		seen[name] = true
	}
	for _, a := range assignments {
		cur := &cursor{topic: a.Topic, partition: a.Partition, group: group}
		cur.seek(a.Offset, a.From)
		co.cursors = append(co.cursors, cur)
		co.byName[partitionName{a.Topic, a.Partition}] = cur
		co.c.meta.want(a.Topic)
	}
	co.rescanLocked()
	return nil
}

// Unassign removes a partition. What was read of it and not polled is dropped.
// It returns ErrNoPartition for one that is not assigned.
func (co *Consumer) Unassign(topic string, partition int32) error {
	co.mu.Lock()
	defer co.mu.Unlock()
	cur, err := co.find(topic, partition)
	if err != nil {
		return err
	}
	co.leaveLocked(cur)
	co.dropLocked(cur)
	cur.epoch++ // what is under way is dropped when it comes
	cur.stopped = true
	delete(co.byName, partitionName{topic, partition})
	co.cursors = slices.DeleteFunc(co.cursors, func(c *cursor) bool { return c == cur })
	return nil
}

// Assigned returns the partitions, with the offset of the next record of each:
// what to assign to go on where this Consumer is.
func (co *Consumer) Assigned() []Assignment {
	co.mu.Lock()
	defer co.mu.Unlock()
	all := make([]Assignment, len(co.cursors))
	for i, cur := range co.cursors {
		all[i] = Assignment{Topic: cur.topic, Partition: cur.partition, Offset: cur.position}
		if cur.position < 0 {
			all[i].Offset, all[i].From = cur.start, cur.from
		}
	}
	return all
}

// Pause stops the reading of a partition until Resume. What was read of it and
// not polled is dropped, to be read again, so that it takes no room. It returns
// ErrNoPartition for a partition that is not assigned.
func (co *Consumer) Pause(topic string, partition int32) error {
	co.mu.Lock()
	defer co.mu.Unlock()
	cur, err := co.find(topic, partition)
	if err != nil || cur.paused {
		return err
	}
	co.leaveLocked(cur)
	if cur.stopped {
		cur.paused = true // its error stays to be polled
		return nil
	}
	co.dropLocked(cur)
	cur.paused = true
	cur.epoch++
	if cur.position >= 0 {
		cur.fetch = cur.position
	}
	return nil
}

// Resume goes on with a partition that was paused, from its Position.
func (co *Consumer) Resume(topic string, partition int32) error {
	co.mu.Lock()
	defer co.mu.Unlock()
	cur, err := co.find(topic, partition)
	if err != nil {
		return err
	}
	cur.paused = false
	co.rescanLocked()
	return nil
}

// Paused returns the partitions that are paused, in the order of their
// assignment.
func (co *Consumer) Paused() (paused []Assignment) {
	for _, a := range co.Assigned() {
		co.mu.Lock()
		cur := co.byName[partitionName{a.Topic, a.Partition}]
		if cur != nil && cur.paused {
			paused = append(paused, a)
		}
		co.mu.Unlock()
	}
	return paused
}

// Position returns the offset of the next record of a partition, -1 as long as
// a start that is no offset has not been looked up. It returns ErrNoPartition
// for one that is not assigned.
func (co *Consumer) Position(topic string, partition int32) (int64, error) {
	co.mu.Lock()
	defer co.mu.Unlock()
	cur, err := co.find(topic, partition)
	if err != nil {
		return 0, err
	}
	return cur.position, nil
}

// Seek goes on at another offset, or Beginning or End, also after an error that
// stopped the partition. What was read and not polled is dropped. A partition
// that is paused stays so. It returns ErrNoPartition for a partition that is
// not assigned.
func (co *Consumer) Seek(topic string, partition int32, offset int64) error {
	if offset < Beginning {
		return fmt.Errorf("client: offset %d", offset)
	}
	co.mu.Lock()
	defer co.mu.Unlock()
	cur, err := co.find(topic, partition)
	if err != nil {
		return err
	}
	co.leaveLocked(cur)
	co.dropLocked(cur)
	cur.seek(offset, time.Time{})
	co.rescanLocked()
	return nil
}

// SeekTime is Seek to the first record whose timestamp is from or later; see
// Assignment.From.
func (co *Consumer) SeekTime(topic string, partition int32, from time.Time) error {
	co.mu.Lock()
	defer co.mu.Unlock()
	cur, err := co.find(topic, partition)
	if err != nil {
		return err
	}
	co.leaveLocked(cur)
	co.dropLocked(cur)
	cur.seek(0, from)
	co.rescanLocked()
	return nil
}

// seek moves a cursor, to a time if from is set.
func (cur *cursor) seek(offset int64, from time.Time) {
	cur.start, cur.fetch, cur.position, cur.from = offset, offset, offset, from
	if offset < 0 || !from.IsZero() {
		cur.fetch, cur.position = -1, -1
	}
	cur.epoch++
	cur.id = TopicID{}
	cur.stopped, cur.failures, cur.retryAt = false, 0, time.Time{}
}

// find returns a cursor, or ErrNoPartition.
func (co *Consumer) find(topic string, partition int32) (*cursor, error) {
	if cur := co.byName[partitionName{topic, partition}]; cur != nil {
		return cur, nil
	}
	return nil, &PartitionError{Topic: topic, Partition: partition, Offset: -1, Err: ErrNoPartition}
}

// rescanLocked makes the fetch loop look at every cursor.
func (co *Consumer) rescanLocked() {
	co.rescan = true
	poke(co.wake)
}
