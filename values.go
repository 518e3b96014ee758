package main

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"wcfs/p9srv"
	"wcfs/zcore"
	"wcfs/zcore/zodb"
)

// Values of options and arguments, where kong's own reading of them does not do: it passes text through JSON, which
// changes bytes that are no UTF-8, and it takes no number without a unit.

// mappers has kong read values by the functions below. An option whose tag has type:"mib", "kib" or "bytes" is a
// size in that unit unless it names another; type:"count" is a number of things. 0 is refused for all of these:
// whoever wants the default leaves the option out.
func mappers() []kong.Option {
	duration := func(s string) (int64, error) {
		d, err := parseDuration(s)
		return int64(d), err
	}
	return []kong.Option{
		kong.KindMapper(reflect.String, kong.MapperFunc(textValue)),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), valueMapper(duration)),
		kong.NamedMapper("mib", sizeMapper(1<<20)),
		kong.NamedMapper("kib", sizeMapper(1<<10)),
		kong.NamedMapper("bytes", sizeMapper(1)),
		kong.NamedMapper("count", valueMapper(parseCount)),
	}
}

// defaults are those that packages below have for what is left out; help shows them.
func defaults() kong.Option {
	all := kong.Vars(p9srv.Defaults())
	maps.Copy(all, kong.Vars{
		"pintimeout":      zcore.DefaultPinTimeout.String(),
		"retention":       zcore.DefaultRetention.String(),
		"pin_window":      strconv.Itoa(zcore.DefaultPinWindow),
		"max_links":       strconv.Itoa(zcore.DefaultMaxLinks),
		"max_waiting":     strconv.Itoa(zcore.DefaultMaxWaiting),
		"max_bases":       strconv.Itoa(zcore.DefaultMaxBases),
		"history_mib":     strconv.Itoa(zcore.DefaultListBytes >> 20),
		"storage_timeout": zodb.DefaultTimeout.String(),
		"storage_poll":    zodb.DefaultPoll.String(),
	})
	return all
}

// textValue takes text byte for byte.
func textValue(ctx *kong.DecodeContext, target reflect.Value) error {
	t, err := ctx.Scan.PopValue("string")
	if err != nil {
		return err
	}
	target.SetString(fmt.Sprint(t.Value))
	return nil
}

// valueMapper reads a value that must be more than 0.
func valueMapper(parse func(string) (int64, error)) kong.Mapper {
	return kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		t, err := ctx.Scan.PopValue("value")
		if err != nil {
			return err
		}
		text := fmt.Sprint(t.Value)
		n, err := parse(text)
		switch {
		case err != nil:
			return err
		case n <= 0:
			return notPositive(text)
		case target.OverflowInt(n):
			return fmt.Errorf("%s is too much", text)
		}
		target.SetInt(n)
		return nil
	})
}

func notPositive(text string) error {
	return fmt.Errorf("%s: must be more than 0; leave the option out for its default", text)
}

// parseDuration takes seconds, and what Go writes, like 1m30s.
func parseDuration(s string) (time.Duration, error) {
	if sec, err := strconv.ParseFloat(s, 64); err == nil {
		if math.IsNaN(sec) || math.Abs(sec) > math.MaxInt64/float64(time.Second)/2 {
			return 0, fmt.Errorf("%q is no time", s)
		}
		d := time.Duration(math.Round(sec * float64(time.Second)))
		if d == 0 && sec > 0 {
			d = 1
		}
		return d, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("%q is no time: give seconds, or a unit as in 500ms or 2m", s)
	}
	return d, nil
}

// durationFlag is a time for the flag package.
type durationFlag struct{ d *time.Duration }

func (f durationFlag) String() string {
	if f.d == nil {
		return ""
	}
	return f.d.String()
}

func (f durationFlag) Set(s string) (err error) {
	*f.d, err = parseDuration(s)
	return err
}

func parseCount(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%q is no whole number", s)
	}
	return n, nil
}

// sizeMapper reads a size; a number without a unit counts units.
func sizeMapper(unit int64) kong.Mapper {
	return valueMapper(func(s string) (int64, error) { return parseSize(s, unit) })
}

// parseSize returns how many units a size is, which K, M, G and T after the number multiply by powers of 1024.
func parseSize(s string, unit int64) (int64, error) {
	bad := fmt.Errorf("%q is no size: give a number, with K, M, G or T after it if it is not in %s", s, unitName(unit))
	number := strings.TrimSuffix(strings.TrimSuffix(strings.ToLower(s), "b"), "i")
	factor := unit
	if number != "" {
		if i := strings.IndexByte("kmgt", number[len(number)-1]); i >= 0 {
			factor = 1 << (10 * (i + 1))
			number = number[:len(number)-1]
		} else if len(number) != len(s) {
			return 0, bad
		}
	}
	x, err := strconv.ParseFloat(number, 64)
	bytes := x * float64(factor)
	if err != nil || math.IsNaN(bytes) || math.Abs(bytes) >= 1<<62 {
		return 0, bad
	}
	n := int64(bytes) / unit
	if float64(n)*float64(unit) != bytes {
		return 0, fmt.Errorf("%s is no whole number of %s", s, unitName(unit))
	}
	return n, nil
}

func unitName(unit int64) string {
	return map[int64]string{1: "bytes", 1 << 10: "KiB", 1 << 20: "MiB"}[unit]
}
