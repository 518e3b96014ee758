package neo

import (
	"errors"
	"fmt"
	"slices"
)

// cluster is what the primary master tells of the nodes and of who has which partition. Its owner locks it.
type cluster struct {
	nodes map[int32]nodeInfo
	id    uint64 // of the partition table
	rows  [][]cell
}

// cell is a copy of a partition.
type cell struct {
	node  int32
	state int8
	since uint64 // id of the partition table in which it became readable
}

func (x cell) readable() bool { return x.state == cellUpToDate || x.state == cellFeeding }

// maxPartitions and maxCopies bound what a master can make us keep.
const (
	maxPartitions = 1 << 16
	maxCopies     = 1 << 8
)

// setNodes takes note of nodes, and returns those whose connection must go: they are not running any more, or
// were started anew.
func (cl *cluster) setNodes(nodes []nodeInfo) (gone []int32) {
	for _, n := range nodes {
		old, known := cl.nodes[n.node]
		if known && old.kind == typeStorage && (n.state != nodeRunning || n.addr != old.addr || n.stamp != old.stamp) {
			gone = append(gone, n.node)
		}
		if n.state == nodeUnknown {
			delete(cl.nodes, n.node)
		} else {
			cl.nodes[n.node] = n
		}
	}
	return gone
}

// setTable replaces the partition table.
func (cl *cluster) setTable(m *partitionTable) error {
	if len(m.rows) == 0 || len(m.rows) > maxPartitions {
		return fmt.Errorf("the master sends a partition table of %d partitions", len(m.rows))
	}
	rows := make([][]cell, len(m.rows))
	for i, row := range m.rows {
		if len(row) > maxCopies {
			return fmt.Errorf("the master sends a partition table with %d copies of a partition", len(row))
		}
		for _, x := range row {
			if x.state != cellDiscarded {
				rows[i] = append(rows[i], cell{x.node, x.state, m.id})
			}
		}
	}
	cl.id, cl.rows = m.id, rows
	return nil
}

// change applies changes, unless they are older than the table.
func (cl *cluster) change(m *partitionChanges) error {
	if cl.rows == nil {
		return errors.New("the master sends changes before the partition table")
	}
	if m.id <= cl.id {
		return nil
	}
	for _, ch := range m.changes {
		if int64(ch.partition) >= int64(len(cl.rows)) {
			return fmt.Errorf("the master changes partition %d of %d", ch.partition, len(cl.rows))
		}
	}
	cl.id = m.id
	for _, ch := range m.changes {
		row := &cl.rows[ch.partition]
		i := slices.IndexFunc(*row, func(x cell) bool { return x.node == ch.node })
		x := cell{ch.node, ch.state, m.id}
		switch {
		case ch.state == cellDiscarded && i >= 0:
			*row = slices.Delete(*row, i, i+1)
		case ch.state == cellDiscarded:
		case i < 0 && len(*row) >= maxCopies:
			return fmt.Errorf("the master sends more than %d copies of a partition", maxCopies)
		case i < 0:
			*row = append(*row, x)
		default:
			if (*row)[i].readable() && x.readable() {
				x.since = (*row)[i].since
			}
			(*row)[i] = x
		}
	}
	return nil
}

// readable returns the storages to read a partition from.
func (cl *cluster) readable(partition int) []cell {
	var cells []cell
	for _, x := range cl.rows[partition] {
		if n, ok := cl.nodes[x.node]; ok && x.readable() && n.kind == typeStorage && n.state == nodeRunning && n.addr != (address{}) {
			cells = append(cells, x)
		}
	}
	return cells
}

// masters returns where masters listen.
func (cl *cluster) masters() []address {
	var l []address
	for _, n := range cl.nodes {
		if n.kind == typeMaster && n.addr != (address{}) {
			l = append(l, n.addr)
		}
	}
	return l
}
