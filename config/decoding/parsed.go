package decoding

import (
	"fmt"
	"reflect"
	"strconv"

	"sluice/config/units"
)

// Parsed is a text of the file with what it means. The decoder parses the text, by the format of
// the field. The zero value is an absent key.
type Parsed[T Text, V any] struct {
	Text  T
	Value V
}

// Text is the type of the text of a [Parsed].
type Text interface {
	~string | units.Secret | units.Location
}

// NewParsed returns a valid text of a format.
func NewParsed[T Text, V any](format Format, text string) Parsed[T, V] {
	v, _ := Rules{format: format}.parseValue(text, reflect.TypeFor[Parsed[T, V]]())
	return v.Interface().(Parsed[T, V])
}

// String returns the text, masked if it may be a secret.
func (t Parsed[T, V]) String() string { return fmt.Sprint(t.Text) }

// GoString masks a secret in %#v.
func (t Parsed[T, V]) GoString() string { return strconv.Quote(t.String()) }

// MarshalText masks a secret in JSON.
func (t Parsed[T, V]) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func (Parsed[T, V]) isParsed() {}

func isParsed(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.Implements(reflect.TypeFor[interface{ isParsed() }]())
}

// Kind returns the kind of a type as the file has it: a [Parsed] is a String.
func Kind(t reflect.Type) reflect.Kind {
	if isMasked(t) || isParsed(t) {
		return reflect.String
	}
	return t.Kind()
}

// written returns the text of a value that is one in the file.
func written(v reflect.Value) reflect.Value {
	if isParsed(v.Type()) {
		return v.Field(0)
	}
	return v
}
