// Uses a Flotilla node through kafkajs: makes a topic, produces,
// reads everything back as members of a group, and administers. What it saw goes to standard output, one JSON object a line.
//
//   npm ci
//   node example.js 127.0.0.1:9092 greetings
//
// kafkajs compresses with gzip only, unless it is given other codecs. It leaves
// the topic behind; a second run needs another name.
import { setTimeout as sleep } from 'node:timers/promises'
import kafkajs from 'kafkajs'

const { AssignerProtocol, CompressionTypes, ConfigResourceTypes, Kafka, logLevel } = kafkajs
const perCodec = 6

const [addr, topic] = process.argv.slice(2)
if (!topic) {
  console.error('usage: example.js HOST:PORT TOPIC')
  process.exit(2)
}
const say = (step, fields) => console.log(JSON.stringify({ step, ...fields }))

const kafka = new Kafka({
  clientId: 'example',
  brokers: [addr],
  logLevel: logLevel.NOTHING,
  connectionTimeout: 5000,
  requestTimeout: 5000,
})
const admin = kafka.admin()
// The node is near: what takes longer has failed.
const giveUp = setTimeout(() => fail(new Error('time is up')), 40000)

const fail = (err) => {
  console.error('kafkajs:', err.message)
  process.exit(1)
}

// metadata asks for metadata until all of it is there. While a partition has no
// leader, as when one is being elected, clients have to ask again. In these calls
// kafkajs 2.2.4 does not: it drops that error, and fails on the answer that it has
// not got with a TypeError.
async function metadata(ask) {
  for (let left = 30; ; left--) {
    try {
      return await ask()
    } catch (err) {
      if (!(err instanceof TypeError) || left === 0) throw err
    }
    await sleep(100)
  }
}

async function createTopic() {
  const created = await admin.createTopics({
    topics: [{
      topic, numPartitions: 2, replicationFactor: 1,
      configEntries: [{ name: 'max.message.bytes', value: '2000000' }],
    }],
  })
  if (!created) throw new Error(`topic ${topic} exists already`)
  say('create-topic', { topic })
  const { topics: [t] } = await metadata(() => admin.fetchTopicMetadata({ topics: [topic] }))
  const { brokers } = await metadata(() => admin.describeCluster()) // of all topics
  const leaders = t.partitions.sort((a, b) => a.partitionId - b.partitionId).map((p) => p.leader)
  say('metadata', { topic: t.name, leaders, brokers: brokers.map((b) => `${b.host}:${b.port}`) })
}

// produce sends keyed records with headers, with an idempotent producer for
// each compression, and returns a timestamp of the middle.
async function produce() {
  const start = Date.now()
  let sent = 0
  for (const [codec, compression] of [['none', CompressionTypes.None], ['gzip', CompressionTypes.GZIP]]) {
    const producer = kafka.producer({
      idempotent: true, maxInFlightRequests: 1, createPartitioner: kafkajs.Partitioners.DefaultPartitioner,
    })
    await producer.connect()
    // An answer tells the first offset of each partition: the records of one
    // lie there in the order of sending.
    for (const partition of [0, 1]) {
      const messages = []
      for (let i = partition; i < perCodec; i += 2) {
        messages.push({
          key: `${codec}-${i}`, value: `${codec} record ${i}. `.repeat(40), partition,
          headers: { codec, n: String(i) }, timestamp: String(start + sent++),
        })
      }
      const [ack] = await producer.send({ topic, compression, messages })
      messages.forEach((m, n) => say('produced', {
        codec, key: m.key, partition: ack.partition, offset: Number(ack.baseOffset) + n,
      }))
    }
    await producer.disconnect()
  }
  return start + sent / 2
}

// until asks again until there is an answer, for 10 s.
async function until(what, ask) {
  for (let left = 200; ; left--) {
    const answer = ask()
    if (answer) return answer
    if (left === 0) throw new Error(`waited in vain for ${what}`)
    await sleep(50)
  }
}

// join starts a member of a group, which tells each record to handle.
async function join(groupId, handle) {
  // Members hear of each other with their heartbeats, which are sent between fetches.
  const consumer = kafka.consumer({ groupId, heartbeatInterval: 200, maxWaitTimeInMs: 200 })
  const member = { consumer, partitions: [] }
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => { member.partitions = payload.memberAssignment[topic] ?? [] })
  await consumer.connect()
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({ autoCommit: false, eachMessage: async ({ partition, message }) => handle(partition, message) })
  return member
}

// groups has members come and go, and looks at their group.
async function groups() {
  const groupId = `${topic}-group`
  const next = new Map() // offsets to commit, by partition
  let count = 0
  const first = await join(groupId, (partition, m) => {
    const headers = Object.fromEntries(Object.entries(m.headers).map(([name, value]) => [name, String(value)]))
    say('group-consumed', {
      partition, offset: Number(m.offset), timestamp: Number(m.timestamp), key: String(m.key), value: String(m.value), headers,
    })
    next.set(partition, String(Number(m.offset) + 1))
    count++
  })
  await until('records', () => count === 2 * perCodec)
  await first.consumer.commitOffsets([...next].map(([partition, offset]) => ({ topic, partition, offset })))
  const [committed] = await admin.fetchOffsets({ groupId, topics: [topic] })
  for (const p of committed.partitions) say('committed', { partition: p.partition, offset: Number(p.offset) })

  const second = await join(groupId, () => {})
  await until('partitions', () => first.partitions.length === 1 && second.partitions.length === 1)
  say('group-shared', { members: [first.partitions, second.partitions] })
  const listed = await admin.listGroups()
  say('groups', { groups: listed.groups.map((g) => g.groupId) })
  const { groups: [described] } = await admin.describeGroups([groupId])
  say('described-group', {
    group: described.groupId, state: described.state, protocol: described.protocol,
    members: described.members.map((m) => AssignerProtocol.MemberAssignment.decode(m.memberAssignment).assignment[topic]),
  })
  await second.consumer.disconnect()
  await until('all partitions', () => first.partitions.length === 2)
  say('group-left', { members: [first.partitions] })
  await first.consumer.disconnect()
}

// deleteGroup makes a group of offsets alone, and deletes it.
async function deleteGroup() {
  const groupId = `${topic}-group-scratch`
  await admin.setOffsets({ groupId, topic, partitions: [{ partition: 0, offset: '1' }] })
  await admin.deleteGroups([groupId])
  const { groups } = await admin.listGroups()
  say('delete-group', { group: groupId, exists: groups.some((g) => g.groupId === groupId) })
}

async function offsets(at) {
  const bounds = await admin.fetchTopicOffsets(topic)
  const timed = await admin.fetchTopicOffsetsByTimestamp(topic, at)
  for (const b of bounds.sort((a, b) => a.partition - b.partition)) {
    const since = timed.find((t) => t.partition === b.partition)
    say('offsets', {
      partition: b.partition, earliest: Number(b.low), latest: Number(b.high), at_ms: at, at: Number(since.offset),
    })
  }
}

const sources = { 1: 'DYNAMIC_TOPIC_CONFIG', 5: 'DEFAULT_CONFIG' }

async function describeConfigs(step) {
  const { resources: [r] } = await admin.describeConfigs({
    includeSynonyms: false,
    resources: [{ type: ConfigResourceTypes.TOPIC, name: topic }],
  })
  const named = r.configEntries.filter((c) => ['max.message.bytes', 'retention.ms', 'retention.bytes'].includes(c.configName))
  say(step, {
    configs: Object.fromEntries(named.map((c) => [c.configName, c.configValue])),
    sources: Object.fromEntries(named.map((c) => [c.configName, sources[c.configSource]])),
  })
}

async function configs() {
  await describeConfigs('configs')
  // This request replaces all that is set: max.message.bytes falls back.
  await admin.alterConfigs({
    validateOnly: false,
    resources: [{
      type: ConfigResourceTypes.TOPIC, name: topic, configEntries: [{ name: 'retention.bytes', value: '100000000' }],
    }],
  })
  await describeConfigs('configs-altered')
}

async function partitionsAndRecords() {
  await admin.createPartitions({ topicPartitions: [{ topic, count: 3 }] })
  const { topics: [t] } = await metadata(() => admin.fetchTopicMetadata({ topics: [topic] }))
  say('create-partitions', { partitions: t.partitions.length })
  await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '1' }] })
  say('delete-records', { partition: 0 })
}

async function deleteTopic() {
  const scratch = `${topic}-scratch`
  await admin.createTopics({ topics: [{ topic: scratch, numPartitions: 1, replicationFactor: 1 }] })
  await admin.deleteTopics({ topics: [scratch] })
  const topics = await metadata(() => admin.listTopics())
  say('delete-topic', { topic: scratch, exists: topics.includes(scratch) })
}

try {
  await admin.connect()
  await createTopic()
  const middle = await produce()
  await groups()
  await deleteGroup()
  await offsets(middle)
  await configs()
  await partitionsAndRecords()
  await deleteTopic()
  await admin.disconnect()
  clearTimeout(giveUp)
} catch (err) {
  fail(err)
}
