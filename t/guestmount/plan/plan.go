// Package plan is what the host's tests and the program they run in a guest tell each other.
//
// The plan goes in as a file. Out comes text on the console, a line each:
//
//	saw STEP N          Follow: content of commit N was read
//	result STEP ok
//	result STEP FAIL WHAT
package plan

import (
	"encoding/json"
	"os"

	"wcfs/zcore/tree/treetest"
)

// Plan is what a guest does, in this order.
type Plan struct {
	Manifest *treetest.Manifest // what the trees hold
	Trees    []Tree
	Watches  []Watch
	Kills    []Kill
	Follows  []Follow // all at once
}

// Tree runs the suite of the tree.
type Tree struct {
	Step    string
	Dir     string // where it is mounted
	NoWatch bool   // only base watches can be had there
}

// Watch sets a base watch up at head, and reads what it is based on.
type Watch struct {
	Step string
	Dir  string
	Name string // of the watch file
}

// Kill kills a process that is blocked in a read and measures until it is gone.
type Kill struct {
	Step   string
	Path   string
	Within int // milliseconds
}

// Follow reads head of a file after each commit of the host's writer. Blocks of commit n hold the number
// n, 8 bytes little endian, over and over. The host commits n+1 when every follower has seen n.
type Follow struct {
	Step    string
	Dir     string
	Oid     string
	Commits int // the last one has this number
	Size    int64
}

// Load reads a plan.
func Load(path string) (*Plan, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	p := new(Plan)
	return p, json.Unmarshal(b, p)
}
