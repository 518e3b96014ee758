// Package isolation checks that no reader ever sees a byte of a wrong revision: on a real mount of a
// real server a Python program commits as fast as it can, while client processes in C, Go and Python look
// at many revisions through memory mappings and pages are dropped behind their backs.
//
// TestChaos has all go wrong at once that files, clients and the database can do, beside clients that do what
// they should, over FUSE and 9P. The faults and their order follow from a seed that is printed and can be given
// again.
//
// The expected content of a block comes from the writer's log, not from wcfs. Each run fails too when it was no
// test: too few checks, no pins, nothing kept in the page cache.
package isolation
