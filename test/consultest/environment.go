package consultest

import (
	"os"
	"strings"
)

// ClearEnvironment removes the variables of Consul's tools from the environment. Call it from
// TestMain.
func ClearEnvironment() {
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "CONSUL_") {
			os.Unsetenv(name)
		}
	}
}
