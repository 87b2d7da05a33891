package decoding

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"

	"sluice/config/units"
)

// masked returns a text of type t without secrets.
func masked(text string, t reflect.Type) string {
	if isParsed(t) {
		t = t.Field(0).Type
	}
	if v := reflect.New(t).Elem(); isMasked(t) {
		setText(v, text)
		return v.Interface().(fmt.Stringer).String()
	}
	return text
}

// isMasked reports whether texts of a type are not shown as they are.
func isMasked(t reflect.Type) bool { return t == secretType || t == locationType }

// setText sets a value that is a text in the file.
func setText(v reflect.Value, text string) {
	switch v.Type() {
	case secretType:
		v.Set(reflect.ValueOf(units.NewSecret(text)))
	case locationType:
		v.Set(reflect.ValueOf(units.NewLocation(text)))
	default:
		v.SetString(text)
	}
}

var (
	durationType = reflect.TypeFor[time.Duration]()
	ratioType    = reflect.TypeFor[units.Ratio]()
	sizeType     = reflect.TypeFor[units.Size]()
	secretType   = reflect.TypeFor[units.Secret]()
	locationType = reflect.TypeFor[units.Location]()
)

// parseScalar parses text into a value of type t. For types with limits it also returns
// the number to compare with them.
func parseScalar(text string, t reflect.Type) (v reflect.Value, number float64, ok bool) {
	v = reflect.New(t).Elem()
	switch {
	case t == durationType:
		d, err := time.ParseDuration(text)
		v.SetInt(int64(d))
		return v, float64(d), err == nil
	case t.Kind() == reflect.Float64:
		percent := false
		if t == ratioType {
			text, percent = strings.CutSuffix(text, "%")
		}
		f, err := strconv.ParseFloat(text, 64)
		if percent {
			f /= 100
		}
		v.SetFloat(f)
		return v, f, err == nil && !math.IsNaN(f)
	case t == sizeType:
		n, ok := parseSize(text)
		v.SetInt(n)
		return v, float64(n), ok
	case t.Kind() == reflect.Int:
		n, err := strconv.Atoi(text)
		v.SetInt(int64(n))
		return v, float64(n), err == nil
	case t.Kind() == reflect.Bool:
		v.SetBool(text == "true")
		return v, 0, text == "true" || text == "false"
	case Kind(t) == reflect.String:
		setText(v, text)
		return v, 0, true
	}
	panic(fmt.Sprintf("BUG: decoding: no scalar type %s", t))
}

// ParseRatio parses a number or a percentage.
func ParseRatio(text string) (ratio float64, ok bool) {
	_, ratio, ok = parseScalar(text, ratioType)
	return ratio, ok
}

var sizeUnits = []struct {
	suffix string
	bytes  int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30},
	{"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9},
	{"B", 1}, {"", 1},
}

func parseSize(text string) (int64, bool) {
	for _, u := range sizeUnits {
		digits, ok := strings.CutSuffix(text, u.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSuffix(digits, " "), 10, 64)
		if err != nil || n > math.MaxInt64/u.bytes || n < 0 {
			return 0, false
		}
		return n * u.bytes, true
	}
	return 0, false
}

// formatScalar is the inverse of parse.
func formatScalar(v reflect.Value) string {
	switch {
	case v.Type() == durationType:
		return FormatDuration(time.Duration(v.Int()))
	case v.Kind() == reflect.Float64:
		s := strconv.FormatFloat(v.Float(), 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0" // a YAML float
		}
		return s
	case v.Type() == sizeType:
		return FormatSize(v.Int())
	case v.Kind() == reflect.Int:
		return strconv.FormatInt(v.Int(), 10)
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case v.Kind() == reflect.String:
		return v.String()
	case isMasked(v.Type()):
		return v.Interface().(interface{ Reveal() string }).Reveal()
	}
	panic(fmt.Sprintf("BUG: decoding: no scalar type %s", v.Type()))
}

// FormatDuration returns "5m" instead of the "5m0s" of the standard library.
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// FormatSize formats n with the largest binary unit that divides it.
func FormatSize(n int64) string {
	for i := 2; i >= 0; i-- {
		if u := sizeUnits[i]; n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}
