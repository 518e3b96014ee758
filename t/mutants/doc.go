// Package mutants breaks the server on purpose, one line at a time, and demands that its tests notice: a
// test that cannot fail shows nothing. The list is in table_test.go.
//
// Every mutant is checked to apply in each run; a random tenth, from a seed that is printed, is run by make test, all of them by
//
//	make mutants
//
// The files of the tree are not touched: go test -overlay builds against changed copies.
package mutants
