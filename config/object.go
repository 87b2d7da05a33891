package config

import (
	"reflect"
	"slices"
	"sync"
)

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
