package config

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"sluice/config/units"
)

// masked returns a text of type t without secrets.
func masked(text string, t reflect.Type) string {
	if isTyped(t) {
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

// The types of settings that other packages have in their options too.
type (
	Ratio    = units.Ratio
	Size     = units.Size
	Secret   = units.Secret
	Location = units.Location
)

var (
	durationType = reflect.TypeFor[time.Duration]()
	ratioType    = reflect.TypeFor[Ratio]()
	sizeType     = reflect.TypeFor[Size]()
	secretType   = reflect.TypeFor[Secret]()
	locationType = reflect.TypeFor[Location]()
)

// rules are the limits of a scalar, from the tags of its field.
type rules struct {
	min, max string
	oneof    []string
	format   string
	fallback string // the default
}

func rulesOf(tag reflect.StructTag) rules {
	r := rules{min: tag.Get("min"), max: tag.Get("max"), format: tag.Get("format"), fallback: tag.Get("default")}
	if words := tag.Get("oneof"); words != "" {
		r.oneof = strings.Split(words, "|")
	}
	return r
}

// want describes the allowed values of a scalar of type t, for an error.
func (r rules) want(t reflect.Type) string {
	limits := ""
	if r.min != "" {
		limits = " from " + r.min + " to " + r.max
	}
	switch {
	case t == durationType:
		return "a duration with a unit (ms, s, m, h)," + limits
	case t == ratioType:
		return "a number" + limits + ", or a percentage"
	case t == sizeType:
		return "a number of bytes or a size such as 64KiB or 10MiB," + limits
	case len(r.oneof) > 0:
		return "one of " + strings.Join(r.oneof, ", ")
	case t.Kind() == reflect.Int:
		return "a whole number" + limits
	case t.Kind() == reflect.Float64:
		return "a number" + limits
	case t.Kind() == reflect.Bool:
		return "true or false"
	case r.format != "":
		return formats[r.format].want
	}
	return "a text on one line"
}

// parse parses text into a value of type t, and reports whether the rules allow it.
func (r rules) parse(text string, t reflect.Type) (reflect.Value, bool) {
	if isTyped(t) {
		return r.parseTyped(text, t)
	}
	v, number, ok := parseScalar(text, t)
	if !ok {
		return v, false
	}
	if kindIn(t) == reflect.String {
		return v, r.allow(text)
	}
	if len(r.oneof) > 0 {
		return v, slices.Contains(r.oneof, formatScalar(v))
	}
	if r.min == "" {
		return v, true
	}
	_, least, _ := parseScalar(r.min, t)
	_, most, _ := parseScalar(r.max, t)
	return v, least <= number && number <= most
}

// parseTyped parses text into a [Typed].
func (r rules) parseTyped(text string, t reflect.Type) (v reflect.Value, ok bool) {
	v = reflect.New(t).Elem()
	if !isLine(text) || len(r.oneof) > 0 && !slices.Contains(r.oneof, text) {
		return v, false
	}
	if text == "" && r.fallback == "" {
		return v, true // like an absent key
	}
	value, err := formats[r.format].parse(text)
	if text == "" || err != nil {
		return v, false
	}
	setText(v.Field(0), text)
	v.Field(1).Set(reflect.ValueOf(value))
	return v, true
}

// isLine reports whether a text has no control characters, and is valid UTF-8.
func isLine(text string) bool {
	return !strings.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f || c == '\uFFFD' })
}

// allow reports whether the rules allow a text.
func (r rules) allow(text string) bool {
	if !isLine(text) {
		return false
	}
	if text == "" && r.fallback == "" {
		return true // like an absent key
	}
	if len(r.oneof) > 0 {
		return slices.Contains(r.oneof, text)
	}
	return r.format == "" || text != "" && formats[r.format].ok(text)
}

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
	case kindIn(t) == reflect.String:
		setText(v, text)
		return v, 0, true
	}
	panic(fmt.Sprintf("BUG: config: no scalar type %s", t))
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
		return formatDuration(time.Duration(v.Int()))
	case v.Kind() == reflect.Float64:
		s := strconv.FormatFloat(v.Float(), 'g', -1, 64)
		if !strings.ContainsAny(s, ".e") {
			s += ".0" // a YAML float
		}
		return s
	case v.Type() == sizeType:
		return formatSize(v.Int())
	case v.Kind() == reflect.Int:
		return strconv.FormatInt(v.Int(), 10)
	case v.Kind() == reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case v.Kind() == reflect.String:
		return v.String()
	case isMasked(v.Type()):
		return v.Interface().(interface{ Reveal() string }).Reveal()
	}
	panic(fmt.Sprintf("BUG: config: no scalar type %s", v.Type()))
}

// formatDuration returns "5m" instead of the "5m0s" of the standard library.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// formatSize formats n with the largest binary unit that divides it.
func formatSize(n int64) string {
	for i := 2; i >= 0; i-- {
		if u := sizeUnits[i]; n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10)
}

// object describes a struct with keys, for the decoder. It does not change.
type object struct {
	fields []field       // in the order of the struct
	absent reflect.Value // with the defaults of all keys
}

type field struct {
	name     string
	index    []int // as in reflect.Value.FieldByIndex
	rules    rules
	required bool
}

// objectOf returns the description of a struct with keys.
func objectOf(t reflect.Type) *object {
	if o, ok := objects.Load(t); ok {
		return o.(*object)
	}
	o := &object{absent: reflect.New(t).Elem()}
	for _, f := range keyFields(t) {
		o.fields = append(o.fields, field{f.Tag.Get("key"), f.Index, rulesOf(f.Tag), f.Tag.Get("required") != ""})
		setDefault(o.absent.FieldByIndex(f.Index), &o.fields[len(o.fields)-1].rules)
	}
	objects.Store(t, o)
	return o
}

// objects has the results of objectOf: a configuration has thousands of equal structs.
var objects sync.Map

// names returns the names of all keys.
func (o *object) names() []string {
	names := make([]string, len(o.fields))
	for i, f := range o.fields {
		names[i] = f.name
	}
	return names
}

// keyFields returns the fields of a struct that have keys, also fields of embedded structs.
func keyFields(t reflect.Type) []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(t), func(f reflect.StructField) bool { return f.Anonymous || f.Tag.Get("key") == noKey })
}
