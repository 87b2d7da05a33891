package route

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
)

// HeaderEdits are edits of the field lines of a message: first lines are removed, then
// others are added. The zero value does nothing.
type HeaderEdits struct {
	// Dropped are the names, in lower case, of the lines to remove.
	Dropped []string
	// Added are the lines to add, in order.
	Added []FieldLine
}

// FieldLine is a field line.
type FieldLine struct {
	Name  string
	Value Template
	// Here: the value is a URL that leads to no other host than that of the request, unless the
	// text itself names one.
	Here bool
}

// Append appends the value for a request.
func (l *FieldLine) Append(out []byte, values Values) []byte {
	start := len(out)
	if out = l.Value.Append(out, values); l.Here {
		return withoutSlashes(out, start)
	}
	return out
}

// NewHeaderEdits returns edits that replace all lines with the names in set, add the fields of add,
// and remove the lines with the names in remove. The values are templates. An *OptionError says
// which edit is invalid: its Key is "set", "add" or "remove", and its Value the name of the field.
func NewHeaderEdits(set, add map[string]string, remove []string) (HeaderEdits, error) {
	var e HeaderEdits
	removed := make(map[string]bool, len(remove)+len(set))
	drop := func(list, name string) error {
		lower := strings.ToLower(name)
		if why := fixedField(lower); why != nil {
			return &OptionError{list, name, why}
		}
		if removed[lower] {
			return &OptionError{list, name, errors.New("is set or removed twice")}
		}
		removed[lower] = true
		e.Dropped = append(e.Dropped, lower)
		return nil
	}
	for _, name := range remove {
		if err := drop("remove", name); err != nil {
			return HeaderEdits{}, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(set)) {
		if err := cmp.Or(drop("set", name), e.append("set", name, set[name])); err != nil {
			return HeaderEdits{}, err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(add)) {
		if why := fixedField(strings.ToLower(name)); why != nil {
			return HeaderEdits{}, &OptionError{"add", name, why}
		}
		if err := e.append("add", name, add[name]); err != nil {
			return HeaderEdits{}, err
		}
	}
	return e, nil
}

func (e *HeaderEdits) append(list, name, value string) error {
	value = strings.Trim(value, " \t")
	t, err := ParseTemplate(value, NoGroups)
	if err != nil {
		return &OptionError{list, name, err}
	}
	here := strings.EqualFold(name, "location") && !strings.HasPrefix(value, "//")
	e.Added = append(e.Added, FieldLine{name, t, here})
	return nil
}

// Empty reports whether e does nothing.
func (e *HeaderEdits) Empty() bool { return len(e.Dropped) == 0 && len(e.Added) == 0 }

// Then returns the edits that do what e does, and then what next does.
func (e HeaderEdits) Then(next HeaderEdits) HeaderEdits {
	both := HeaderEdits{Dropped: slices.Concat(e.Dropped, next.Dropped)}
	for _, line := range e.Added {
		if !slices.Contains(next.Dropped, strings.ToLower(line.Name)) {
			both.Added = append(both.Added, line)
		}
	}
	both.Added = append(both.Added, next.Added...)
	return both
}

// Fields are the field lines of a request, as of [Request].
type Fields interface {
	Field(name string, from int) (value []byte, next int)
}

// firstAdded is above every index of Fields.
const firstAdded = 1 << 20

// Field returns what of.Field would if of had the lines after the edits. It allocates only for the
// value of a line that e adds.
func (e *HeaderEdits) Field(of Fields, values Values, name string, from int) (value []byte, next int) {
	if from < firstAdded && !slices.Contains(e.Dropped, name) {
		if value, next = of.Field(name, from); next >= 0 {
			return value, next
		}
	}
	for i := max(0, from-firstAdded); i < len(e.Added); i++ {
		if line := &e.Added[i]; strings.EqualFold(line.Name, name) {
			return line.Append(nil, values), firstAdded + i + 1
		}
	}
	return nil, -1
}

// fixedFields are the names of fields that no edit may touch, in lower case, with the
// reasons. A name that ends with a hyphen is a prefix.
var fixedFields = map[string]string{
	"connection":          "belongs to one connection",
	"http2-settings":      "belongs to one connection",
	"keep-alive":          "belongs to one connection",
	"proxy-authenticate":  "belongs to one connection",
	"proxy-authorization": "belongs to one connection",
	"proxy-connection":    "belongs to one connection",
	"te":                  "belongs to one connection",
	"upgrade":             "belongs to one connection",

	"content-length":    "frames the body",
	"trailer":           "frames the body",
	"transfer-encoding": "frames the body",
	"expect":            "frames the body",

	"grpc-message": "is the status of a gRPC call",
	"grpc-status":  "is the status of a gRPC call",
	"grpc-timeout": "is written by sluice",
	"host":         "is edited by host_header",
	"max-forwards": "is written by sluice",
	"via":          "shows sluice that a request comes back",

	"sec-websocket-": "belongs to the handshake of WebSocket",
	"x-sluice-":      "is written by sluice",
}

// fixedField returns why a field, whose name is in lower case, may not be edited, or nil.
func fixedField(lower string) error {
	if !isToken(lower) {
		return errors.New("is not the name of a header field")
	}
	for name, why := range fixedFields {
		if lower == name || strings.HasSuffix(name, "-") && strings.HasPrefix(lower, name) {
			return errors.New("cannot be edited: it " + why)
		}
	}
	return nil
}
