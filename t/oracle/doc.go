// Package oracle holds what the server knows of the history of a database against what Python's ZODB and
// BTrees find in the same file: the server and the generator of its tests could share a mistake, these do
// not.
package oracle
