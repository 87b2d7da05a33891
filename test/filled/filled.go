// Package filled sets every field of a value, for tests that follow a state across a boundary: a
// field that somebody adds is in them at once.
package filled

import (
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"
)

// Values sets fields to values that differ, also from one call to the next.
type Values struct {
	t *testing.T
	n int
}

// New returns values for a test.
func New(t *testing.T) *Values { return &Values{t: t} }

// Fill sets every field of the struct to which v points, also those in structs below it. A struct
// may be in one of its own type, not in two: there a pointer stays nil.
func (f *Values) Fill(v any) { f.fill(reflect.ValueOf(v).Elem(), nil) }

// fill sets v, which is in structs of the types within.
func (f *Values) fill(v reflect.Value, within []reflect.Type) {
	f.n++
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text ", f.n))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(f.n))
	case reflect.Uint8:
		v.SetUint(1)
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.n))
	case reflect.Float64:
		v.SetFloat(float64(f.n))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		f.fill(key, within)
		f.fill(value, within)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			f.fill(v.Index(i), within)
		}
	case reflect.Pointer:
		if again := slices.Index(within, v.Type().Elem()); again >= 0 && slices.Contains(within[again+1:], v.Type().Elem()) {
			return
		}
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), within)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, f.n, 0, time.UTC)))
			return
		}
		for i := range v.NumField() {
			f.fill(v.Field(i), append(slices.Clip(within), v.Type()))
		}
	default:
		f.t.Fatalf("a field has the type %s: teach this test to set it", v.Type())
	}
}
