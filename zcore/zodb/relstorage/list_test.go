package relstorage_test

import (
	"slices"
	"testing"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/relstorage"
	"wcfs/zcore/zodb/storagetest"
)

// TestOidsNaming: only what names the class in its newest revision, and what is compressed, is listed.
func TestOidsNaming(t *testing.T) {
	for name, b := range map[string]*backend{"postgres": newPostgres(t), "sqlite": newSQLite(t)} {
		t.Run(name, func(t *testing.T) {
			named := func(class string) []byte { return []byte("\x80\x02cmodule\n" + class + "\n.\x80\x02}.") }
			first := b.Commit(t, map[zodb.Oid][]byte{
				0x1000: named("ZBigFile"), 0x1001: storagetest.Record([]byte("\x00'\\")),
				0x1002: append(storagetest.Record(make([]byte, 1000)), "ZBigFile"...), // too far behind
				0x1003: []byte(".zcompressed"), 0x1004: named("Other"),
			})
			second := b.Commit(t, map[zodb.Oid][]byte{0x1000: named("Other"), 0x1004: named("ZBigFile")})
			s := open(t, b.url, relstorage.Options{})
			for at, want := range map[zodb.Tid][]zodb.Oid{
				first - 1: nil, first: {0x1000, 0x1003}, second: {0x1003, 0x1004},
			} {
				var got []zodb.Oid
				err := s.OidsNaming(t.Context(), at, "ZBigFile", func(oid zodb.Oid) error { got = append(got, oid); return nil })
				if err != nil || !slices.Equal(got, want) {
					t.Errorf("@%s: %v, %v; want %v", at, got, err, want)
				}
			}
		})
	}
}
