package decoding

import (
	"reflect"
	"slices"
	"strings"
)

// A Format is a rule for a text.
type Format struct {
	Want  string                    // what is allowed, for an error
	OK    func(string) bool         // reports whether a text, which is not empty, is allowed
	Parse func(string) (any, error) // returns the value of a [Parsed]; nil: the text is all
	Tells bool                      // the error of Parse is what is allowed, for an error
}

// Rules are the limits of a scalar, from the tags of its field.
type Rules struct {
	min, max string
	oneof    []string
	format   Format // zero: any text on one line
	Default  string // as in the file; empty: none
}

// Rules returns the rules of a field.
func (s *Schema) Rules(tag reflect.StructTag) Rules {
	r := Rules{min: tag.Get("min"), max: tag.Get("max"), format: s.Formats[tag.Get("format")], Default: tag.Get("default")}
	if words := tag.Get("oneof"); words != "" {
		r.oneof = strings.Split(words, "|")
	}
	return r
}

// Want describes the allowed values of a scalar of type t, for an error.
func (r Rules) Want(t reflect.Type) string {
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
	case r.format.OK != nil:
		return r.format.Want
	}
	return WantText
}

// WantText is what a text without a format must be.
const WantText = "a text on one line"

// parse parses text into a value of type t, and reports whether the rules allow it.
func (r Rules) parse(text string, t reflect.Type) (reflect.Value, bool) {
	if isParsed(t) {
		return r.parseValue(text, t)
	}
	v, number, ok := parseScalar(text, t)
	if !ok {
		return v, false
	}
	if Kind(t) == reflect.String {
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

// parseValue parses text into a [Parsed].
func (r Rules) parseValue(text string, t reflect.Type) (v reflect.Value, ok bool) {
	v = reflect.New(t).Elem()
	if !isLine(text) || len(r.oneof) > 0 && !slices.Contains(r.oneof, text) {
		return v, false
	}
	if text == "" && r.Default == "" {
		return v, true // like an absent key
	}
	value, err := r.format.Parse(text)
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

func (r Rules) allow(text string) bool {
	if !isLine(text) {
		return false
	}
	if text == "" && r.Default == "" {
		return true // like an absent key
	}
	if len(r.oneof) > 0 {
		return slices.Contains(r.oneof, text)
	}
	return r.format.OK == nil || text != "" && r.format.OK(text)
}
