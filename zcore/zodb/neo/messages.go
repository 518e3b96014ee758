package neo

import "wcfs/zcore/zodb"

// message is a message of the protocol. All are built here and by the literals of these types.
type message interface {
	// fields goes through the fields, in the order in which they are sent.
	fields(c coder)
}

// isAnswer is the bit of a code that answers have.
const isAnswer = 0x8000

type (
	// requestIdentification is the first message on a connection.
	requestIdentification struct {
		kind     int8
		node     int32 // ours, 0 if the master is to give one
		addr     address
		cluster  []byte
		stamp    stamp // that the master gave
		readOnly bool
	}
	acceptIdentification struct {
		kind  int8
		node  int32
		yours int32
	}
	notPrimaryMaster struct {
		primary int32 // index in masters, -1 if not known
		masters []address
	}
	nodeInformation struct {
		at    stamp
		nodes []nodeInfo
	}
	partitionTable struct {
		id       uint64
		replicas uint32
		rows     [][]cellInfo
	}
	partitionChanges struct {
		id       uint64
		replicas uint32
		changes  []cellChange
	}
	invalidateObjects struct {
		tid  zodb.Tid
		oids []zodb.Oid
	}
	clusterInformation struct{ state int8 }

	ping          struct{}
	pong          struct{}
	closeClient   struct{}
	stopOperation struct{}
	flushLog      struct{}

	askLastTransaction    struct{}
	answerLastTransaction struct{ tid zodb.Tid }

	// askObject asks for the revision at, or else for the last one before before.
	askObject struct {
		oid        zodb.Oid
		at, before zodb.Tid
	}
	answerObject struct {
		oid          zodb.Oid
		serial, next zodb.Tid
		compression  int8
		checksum     [20]byte
		data         []byte
		dataSerial   zodb.Tid
	}

	// askTIDsFrom asks for the first length transactions of a partition in [from, to].
	askTIDsFrom struct {
		from, to          zodb.Tid
		length, partition uint32
	}
	answerTIDsFrom struct{ tids []zodb.Tid }

	askTransaction    struct{ tid zodb.Tid }
	answerTransaction struct {
		tid              zodb.Tid
		user, desc, meta []byte
		packed           bool
		oids             []zodb.Oid // also those that were only checked
	}

	// askHistory asks for revisions first to last-1, the newest is number 0.
	askHistory struct {
		oid         zodb.Oid
		first, last uint64
	}
	answerHistory struct {
		oid  zodb.Oid
		revs []revision
	}

	// askOIDsFrom asks for objects of a partition that are not deleted as of at, from from on.
	askOIDsFrom struct {
		partition, length uint32
		from              zodb.Oid
		at                zodb.Tid
	}
	answerOIDsFrom struct {
		next zodb.Oid // none at the end
		oids []zodb.Oid
	}

	answerError struct {
		code uint32
		text []byte
	}
)

// Parts of messages.
type (
	nodeInfo struct {
		kind  int8
		addr  address
		node  int32
		state int8
		stamp stamp
	}
	cellInfo struct {
		node  int32
		state int8
	}
	cellChange struct {
		partition uint32
		cellInfo
	}
	revision struct {
		tid  zodb.Tid
		size uint32 // as stored; 0 for a deletion
	}
)

func (m *requestIdentification) fields(c coder) {
	c.tuple(6, func() {
		c.enum(enumNodeType, &m.kind)
		c.node(&m.node)
		c.address(&m.addr)
		c.bytes(&m.cluster)
		c.stamp(&m.stamp)
		c.identity(&m.readOnly)
	})
}

func (m *acceptIdentification) fields(c coder) {
	c.tuple(3, func() { c.enum(enumNodeType, &m.kind); c.node(&m.node); c.node(&m.yours) })
}

func (m *notPrimaryMaster) fields(c coder) {
	c.tuple(2, func() {
		c.index(&m.primary)
		list(c, &m.masters, 1, func(a *address) { c.address(a) })
	})
}

func (m *nodeInformation) fields(c coder) {
	c.tuple(2, func() {
		c.stamp(&m.at)
		list(c, &m.nodes, 5, func(n *nodeInfo) {
			c.tuple(5, func() {
				c.enum(enumNodeType, &n.kind)
				c.address(&n.addr)
				c.node(&n.node)
				c.enum(enumNodeState, &n.state)
				c.stamp(&n.stamp)
			})
		})
	})
}

func (m *partitionTable) fields(c coder) {
	c.tuple(3, func() {
		c.optional(&m.id)
		c.uint32(&m.replicas)
		list(c, &m.rows, 1, func(row *[]cellInfo) {
			list(c, row, 2, func(x *cellInfo) {
				c.tuple(2, func() { c.node(&x.node); c.enum(enumCellState, &x.state) })
			})
		})
	})
}

func (m *partitionChanges) fields(c coder) {
	c.tuple(3, func() {
		c.optional(&m.id)
		c.uint32(&m.replicas)
		list(c, &m.changes, 3, func(x *cellChange) {
			c.tuple(3, func() { c.uint32(&x.partition); c.node(&x.node); c.enum(enumCellState, &x.state) })
		})
	})
}

func (m *invalidateObjects) fields(c coder) { c.tuple(2, func() { tid(c, &m.tid); oids(c, &m.oids) }) }
func (m *clusterInformation) fields(c coder) {
	c.tuple(1, func() { c.enum(enumClusterState, &m.state) })
}

func (*ping) fields(c coder)               { c.tuple(0, func() {}) }
func (*pong) fields(c coder)               { c.tuple(0, func() {}) }
func (*closeClient) fields(c coder)        { c.tuple(0, func() {}) }
func (*stopOperation) fields(c coder)      { c.tuple(0, func() {}) }
func (*flushLog) fields(c coder)           { c.tuple(0, func() {}) }
func (*askLastTransaction) fields(c coder) { c.tuple(0, func() {}) }

func (m *answerLastTransaction) fields(c coder) { c.tuple(1, func() { tid(c, &m.tid) }) }

func (m *askObject) fields(c coder) {
	c.tuple(3, func() { oid(c, &m.oid); c.optID((*uint64)(&m.at)); c.optID((*uint64)(&m.before)) })
}

func (m *answerObject) fields(c coder) {
	c.tuple(7, func() {
		oid(c, &m.oid)
		tid(c, &m.serial)
		c.optID((*uint64)(&m.next))
		c.compression(&m.compression)
		c.checksum(&m.checksum)
		c.bytes(&m.data)
		c.optID((*uint64)(&m.dataSerial))
	})
}

func (m *askTIDsFrom) fields(c coder) {
	c.tuple(4, func() { tid(c, &m.from); tid(c, &m.to); c.uint32(&m.length); c.uint32(&m.partition) })
}
func (m *answerTIDsFrom) fields(c coder) { c.tuple(1, func() { tids(c, &m.tids) }) }

func (m *askTransaction) fields(c coder) { c.tuple(1, func() { tid(c, &m.tid) }) }

func (m *answerTransaction) fields(c coder) {
	c.tuple(6, func() {
		tid(c, &m.tid)
		c.bytes(&m.user)
		c.bytes(&m.desc)
		c.bytes(&m.meta)
		c.flag(&m.packed)
		oids(c, &m.oids)
	})
}

func (m *askHistory) fields(c coder) {
	c.tuple(3, func() { oid(c, &m.oid); c.uint64(&m.first); c.uint64(&m.last) })
}

func (m *answerHistory) fields(c coder) {
	c.tuple(2, func() {
		oid(c, &m.oid)
		list(c, &m.revs, 9, func(r *revision) { c.tuple(2, func() { tid(c, &r.tid); c.uint32(&r.size) }) })
	})
}

func (m *askOIDsFrom) fields(c coder) {
	c.tuple(4, func() { c.uint32(&m.partition); c.uint32(&m.length); oid(c, &m.from); tid(c, &m.at) })
}

func (m *answerOIDsFrom) fields(c coder) {
	c.tuple(2, func() { c.optID((*uint64)(&m.next)); oids(c, &m.oids) })
}

func (m *answerError) fields(c coder) { c.tuple(2, func() { c.code(&m.code); c.bytes(&m.text) }) }
