// Package httpsrv shows a running server to those who run it: metrics for Prometheus, a health check, Go's profiles,
// and a page for people, at --http ADDR.
//
// It owns its listeners, the requests under way, and what it found out about the history of bigfiles (filemap.go). It
// does not own the core, the storage or certificates. It writes nothing, anywhere: every request is a GET.
//
// Invariants: all that is shown of the present is made of one zcore.State, which never waits. What needs the database
// (the map, data of a block) is loaded by few at a time, and by nobody whom clients wait for. Everything the browser loads
// comes from this binary.
//
// Locks: maps.mu, then fileMap.mu; states.mu, under which a State is made, then users.mu. Nothing is loaded or sent under them.
package httpsrv
