package config

import "reflect"

// NeedRestart returns the keys in which two configurations differ and whose
// change takes effect at the next start only, in the order of the file.
func NeedRestart(running, loaded *Config) []string {
	return differences(reflect.ValueOf(*running), reflect.ValueOf(*loaded), "", false)
}

func differences(a, b reflect.Value, key string, restart bool) []string {
	if a.Kind() != reflect.Struct {
		if restart && !reflect.DeepEqual(a.Interface(), b.Interface()) {
			return []string{key}
		}
		return nil
	}
	var keys []string
	for i := range a.NumField() {
		tag := a.Type().Field(i).Tag
		keys = append(keys, differences(a.Field(i), b.Field(i), join(key, tag.Get("key")),
			restart || tag.Get("restart") == "yes")...)
	}
	return keys
}
