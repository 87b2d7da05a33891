package decoding

import (
	"fmt"
	"reflect"
	"strconv"

	"sluice/config/units"
)

// Typed is a text of the file with what it means. The decoder parses the text, by the format of
// the field. The zero value is an absent key.
type Typed[T Text, V any] struct {
	Text  T
	Value V
}

// Text is the type of the text of a [Typed].
type Text interface {
	~string | units.Secret | units.Location
}

// NewTyped returns a valid text of a format.
func NewTyped[T Text, V any](format Format, text string) Typed[T, V] {
	v, _ := Rules{format: format}.parseTyped(text, reflect.TypeFor[Typed[T, V]]())
	return v.Interface().(Typed[T, V])
}

// String returns the text, masked if it may be a secret.
func (t Typed[T, V]) String() string { return fmt.Sprint(t.Text) }

// GoString masks a secret in %#v.
func (t Typed[T, V]) GoString() string { return strconv.Quote(t.String()) }

// MarshalText masks a secret in JSON.
func (t Typed[T, V]) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

func (Typed[T, V]) isTyped() {}

func isTyped(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && t.Implements(reflect.TypeFor[interface{ isTyped() }]())
}

// Kind returns the kind of a type as the file has it: a [Typed] is a String.
func Kind(t reflect.Type) reflect.Kind {
	if isMasked(t) || isTyped(t) {
		return reflect.String
	}
	return t.Kind()
}

// written returns the text of a value that is one in the file.
func written(v reflect.Value) reflect.Value {
	if isTyped(v.Type()) {
		return v.Field(0)
	}
	return v
}
