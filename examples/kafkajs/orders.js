// Orders, and three services that each hear of all of them, with kafkajs.
//
//   npm ci
//   node orders.js 127.0.0.1:9092 create
//   node orders.js 127.0.0.1:9092 work order-service
//   node orders.js 127.0.0.1:9092 work billing
//   node orders.js 127.0.0.1:9092 place 1 20
//   node orders.js 127.0.0.1:9092 rewind billing
//
// place sends what happens to the orders 1 to 20: order.placed, order.paid and
// order.shipped, with the order's id as the key, so that what happens to one
// order lies in one partition, in its order.
//
// work handles events as a member of a group, until it is interrupted. Each group
// gets every event; members of one group, in as many terminals as there are
// partitions, share them. rewind lets a group whose members have all left begin
// again. What happened goes to standard output, one JSON object a line.
import kafkajs from 'kafkajs'

const { Kafka, Partitioners, logLevel } = kafkajs
const topic = 'orders'
const events = ['order.placed', 'order.paid', 'order.shipped']

const [addr, command, ...args] = process.argv.slice(2)
const say = (step, fields) => console.log(JSON.stringify({ step, ...fields }))
const kafka = new Kafka({ clientId: 'orders', brokers: [addr], logLevel: logLevel.NOTHING })

async function create() {
  const admin = kafka.admin()
  await admin.connect()
  const created = await admin.createTopics({ topics: [{ topic, numPartitions: 6, replicationFactor: -1 }] })
  await admin.disconnect()
  if (!created) throw new Error(`topic ${topic} exists already`)
  say('created', { topic })
}

async function place(first, last) {
  // Idempotent: what is sent again after an error is in the topic once.
  const producer = kafka.producer({ idempotent: true, maxInFlightRequests: 1, createPartitioner: Partitioners.DefaultPartitioner })
  await producer.connect()
  for (const event of events) {
    const messages = []
    for (let n = Number(first); n <= Number(last); n++) {
      const order = `order-${n}`
      messages.push({ key: order, value: JSON.stringify({ event, order }) })
    }
    await producer.send({ topic, messages })
    for (const m of messages) say('placed', JSON.parse(m.value))
  }
  await producer.disconnect()
}

async function work(groupId) {
  const consumer = kafka.consumer({ groupId })
  consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => say('assigned', { partitions: payload.memberAssignment[topic] ?? [] }))
  consumer.on(consumer.events.CRASH, ({ payload }) => {
    if (!payload.restart) fail(payload.error)
  })
  await consumer.connect()
  // A group that has committed nothing yet begins at the first event.
  await consumer.subscribe({ topics: [topic], fromBeginning: true })
  await consumer.run({
    // An event counts as handled when this has returned. If the process is killed
    // before that was committed, whoever has the partition next gets it again.
    eachMessage: async ({ partition, message }) => {
      const { event, order } = JSON.parse(message.value)
      say('handled', { event, order, key: String(message.key), partition, offset: Number(message.offset) })
    },
  })
  // Leaving commits what was handled, and gives the partitions to the others. While
  // kafkajs 2.2.4 joins again, after the node was away, disconnect does not keep it
  // from going on: exit does.
  for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => consumer.disconnect().then(() => process.exit(0), fail))
}

async function rewind(groupId) {
  const admin = kafka.admin()
  await admin.connect()
  await admin.resetOffsets({ groupId, topic, earliest: true })
  await admin.disconnect()
  say('rewound', { group: groupId })
}

const fail = (err) => {
  console.error('orders:', err.message)
  process.exit(1)
}

const commands = { create: [create, 0], place: [place, 2], work: [work, 1], rewind: [rewind, 1] }
const [run, wants] = commands[command] ?? []
if (!run || args.length !== wants) {
  console.error('usage: orders.js HOST:PORT create|place FIRST LAST|work GROUP|rewind GROUP')
  process.exit(2)
}
run(...args).catch(fail)
