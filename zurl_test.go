package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// db/17: every parameter that zodburi and the storages' own resolvers know is taken or refused by one rule on every
// scheme. None of the databases is there, which is found out after the URL was read.
func TestURLParameters(t *testing.T) {
	dir := t.TempDir()
	everywhere := "database_name=x connection_pool_size=1 connection_pool_timeout=1 connection_cache_size=1 connection_cache_size_bytes=1MB" +
		" connection_historical_pool_size=1 connection_historical_cache_size=1 connection_historical_cache_size_bytes=1" +
		" connection_historical_timeout=1 connection_large_record_size=1 read_only=1 demostorage=0 demostorage= nosuch="
	rel := " keep_history=1 pack_gc=1 pack_dry_run=1 shared_blob_dir=1 cache_local_mb=1 commit_lock_timeout=1 commit_lock_id=1 name=x" +
		" blob_dir=/x replica_conf=/x cache_module_name=x cache_prefix=x cache_delta_size_limit=1 cache_local_compression=x driver=auto" +
		" blob_cache_size=1 blob_cache_size_check=1 blob_cache_chunk_size=1 cache_local_object_max=1 replica_timeout=1" +
		" pack_batch_timeout=1 pack_duty_cycle=1 pack_max_delay=1 cache_servers=x"
	for url, params := range map[string]string{
		"file://" + filepath.Join(dir, "Data.fs"): " create=0 quota=1MB blobstorage_dir=/x blobstorage_layout=bushy",
		"zeo://127.0.0.1:1/": " storage=x storage= wait=0 wait_timeout= wait_timeout=0 min_disconnect_poll=1 max_disconnect_poll=1" +
			" read_only_fallback=1 shared_blob_dir=1 name=x client=x var=/x username=u realm=r blob_dir=/x cache_size=10MB debug=1" +
			" wait_for_server_on_startup=0 drop_cache_rather_verify=1",
		"neo://c@127.0.0.1:1": " compress=1 read-only=1 logfile=/x cache-size=1MB dynamic_master_list=/x ignore-wrong-checksum=1 ca= cert= key=",
		"postgresql://u@127.0.0.1:1/db": " connect_timeout=1 sslmode=disable application_name=x options=-cjit=off keepalives=1" +
			" target_session_attrs=any" + rel,
		"sqlite://" + filepath.Join(dir, "main.sqlite3"): rel,
	} {
		open := func(param string) error {
			_, err := openStorage(context.Background(), url+"?"+param, &storageOptions{Timeout: 20 * time.Millisecond, Poll: time.Second})
			if err == nil {
				t.Fatalf("%s?%s: there is a database", url, param)
			}
			return err
		}
		var all []string
		for param := range strings.FieldsSeq(everywhere + params) {
			all = append(all, param)
		}
		if err := open(strings.Join(all, "&")); exitCode(err) != exitFailure { // together: it may take a while
			for _, param := range all {
				if err := open(param); exitCode(err) != exitFailure {
					t.Errorf("%s?%s: %v", url, param, err)
				}
			}
		}
		for _, param := range []string{"nosuch=1", "demostorage=1", "demostorage=true", "stroage=1", "password=x"} {
			if err := open(param); exitCode(err) != exitUsage {
				t.Errorf("%s?%s: %v, want wrong use", url, param, err)
			}
		}
	}
}
