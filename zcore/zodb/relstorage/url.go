package relstorage

import (
	"context"
	"errors"
	"fmt"
	"net"
	neturl "net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sys/unix"

	"wcfs/zcore/zodb"
	"wcfs/zcore/zodb/urlparam"
)

const passwordAdvice = "the URL is visible to every user of this machine: leave the password out and name a file with it, by --storage-password-file or PGPASSFILE"

// refusePassword finds a password in a URL that may be malformed in any other way; messages of
// parsers, which quote what they were given, come only after it.
func refusePassword(url string) error {
	_, rest, _ := strings.Cut(url, "://")
	rest, query, _ := strings.Cut(rest, "?")
	authority, _, _ := strings.Cut(rest, "/")
	user, hosts := "", authority
	if i := strings.LastIndexByte(rest, '@'); i >= 0 {
		// A password may hold a raw '/' or '@'; then the URL is wrong, but it is a password still.
		user, hosts = rest[:i], rest[i+1:]
	}
	if strings.Contains(user, ":") {
		host, _, _ := strings.Cut(hosts, "/")
		return fmt.Errorf("relstorage: postgresql://...@%s: %w: %s", host, ErrPassword, passwordAdvice)
	}
	for _, kv := range strings.FieldsFunc(query, func(r rune) bool { return r == '&' || r == ';' }) {
		key, _, _ := strings.Cut(kv, "=")
		if key, err := neturl.QueryUnescape(key); err != nil || strings.Contains(strings.ToLower(key), "password") {
			return fmt.Errorf("relstorage: postgresql://...?password=...: %w: %s", ErrPassword, passwordAdvice)
		}
	}
	return nil
}

// ofRelStorage are the parameters of RelStorage's own URIs that have no effect here.
const ofRelStorage = "read_only keep_history pack_gc pack_dry_run shared_blob_dir cache_local_mb commit_lock_timeout commit_lock_id" +
	" name blob_dir replica_conf cache_module_name cache_prefix cache_delta_size_limit cache_local_compression driver" +
	" blob_cache_size blob_cache_size_check blob_cache_chunk_size cache_local_object_max replica_timeout pack_batch_timeout" +
	" pack_duty_cycle pack_max_delay cache_servers"

var (
	// postgresParams takes what libpq takes and pgx understands, and what a session may have set.
	postgresParams = urlparam.Scheme{
		Name: "postgresql URL",
		Taken: "host port dbname database user passfile service servicefile connect_timeout target_session_attrs" +
			" sslmode sslcert sslkey sslrootcert sslsni sslnegotiation channel_binding krbspn krbsrvname" +
			" application_name options search_path client_encoding statement_timeout lock_timeout sslcertmode require_auth",
		Python: ofRelStorage + " keepalives keepalives_idle keepalives_interval keepalives_count tcp_user_timeout fallback_application_name gssencmode",
	}
	sqliteParams = urlparam.Scheme{Name: "sqlite URL", Taken: "data_dir", Python: ofRelStorage}
)

// poolConfig makes the configuration of the pool that url and opt ask for.
func poolConfig(url string, opt Options) (*pgxpool.Config, error) {
	if err := refusePassword(url); err != nil {
		return nil, err
	}
	u, err := neturl.Parse(url)
	if err != nil {
		return nil, zodb.URLErrorf("relstorage: not a URL: %w", err)
	}
	vals, err := postgresParams.Parse(u.RawQuery)
	if err != nil {
		return nil, err
	}
	if strings.Trim(u.Path, "/") == "" && vals["dbname"]+vals["database"]+vals["service"] == "" {
		return nil, zodb.URLErrorf("relstorage: %s names no database: postgresql://user@host:port/database", url)
	}
	q := neturl.Values{}
	for name, val := range vals {
		q.Set(name, val)
	}
	u.RawQuery = q.Encode()
	cfg, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		return nil, fmt.Errorf("relstorage: %w", err)
	}
	cfg.MaxConns = int32(opt.Conns + 1)
	cfg.MaxConnLifetime = 24 * time.Hour
	cc := cfg.ConnConfig
	cc.ConnectTimeout = opt.Timeout
	cc.DialFunc = dialer(opt.Timeout).DialContext
	for k, v := range map[string]string{
		"application_name":              "wcfs",
		"default_transaction_read_only": "on",
		// Every query here is answered by an index; tables that were never analysed mislead the planner.
		"enable_seqscan": "off",
		"jit":            "off",
	} {
		if _, ok := cc.RuntimeParams[k]; !ok {
			cc.RuntimeParams[k] = v
		}
	}
	if opt.PasswordFile != "" {
		if _, err := readPassword(opt.PasswordFile); err != nil {
			return nil, err
		}
		cfg.BeforeConnect = func(_ context.Context, cc *pgx.ConnConfig) (err error) {
			cc.Password, err = readPassword(opt.PasswordFile)
			return err
		}
	}
	return cfg, nil
}

// dialer makes a peer that is gone without a word an error in time.
func dialer(timeout time.Duration) *net.Dialer {
	return &net.Dialer{
		Timeout:         timeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3},
		Control: func(network, _ string, c syscall.RawConn) (err error) {
			if !strings.HasPrefix(network, "tcp") {
				return nil
			}
			cerr := c.Control(func(fd uintptr) {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
			})
			return errors.Join(cerr, err)
		},
	}
}

func readPassword(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("relstorage: password file: %w", err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// sqlitePath returns the file that a sqlite URL names:
//
//	sqlite:///path/to/data-dir/main.sqlite3
//	sqlite:///path/to/data-dir                 RelStorage's data-dir
//	sqlite://?data_dir=/path/to/data-dir       as RelStorage's own URIs
func sqlitePath(url string) (string, error) {
	u, err := neturl.Parse(url)
	if err != nil {
		return "", zodb.URLErrorf("relstorage: not a URL: %w", err)
	}
	vals, err := sqliteParams.Parse(u.RawQuery)
	if err != nil {
		return "", err
	}
	path := u.Path
	if path == "" {
		path = vals["data_dir"]
	}
	if u.Host != "" || u.Opaque != "" || !filepath.IsAbs(path) {
		return "", zodb.URLErrorf("relstorage: %s names no file: sqlite:///path/to/data-dir/main.sqlite3", url)
	}
	fi, err := os.Stat(path)
	if err == nil && fi.IsDir() {
		path = filepath.Join(path, "main.sqlite3")
		fi, err = os.Stat(path)
	}
	if err != nil {
		return "", fmt.Errorf("relstorage: %w: make the database with RelStorage first", err)
	}
	if !fi.Mode().IsRegular() {
		return "", fmt.Errorf("relstorage: %s is not a regular file", path)
	}
	return path, nil
}
