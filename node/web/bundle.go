package web

import (
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"strings"
)

// What a module of ours may say to others. Anything else at the start of a line with "import" or "export" is a mistake.
var (
	importing   = regexp.MustCompile(`(?m)^import \{([^}]*)\} from "([^"]+)";$`)
	reexporting = regexp.MustCompile(`(?m)^export \{([^}]*)\} from "([^"]+)";$`)
	exporting   = regexp.MustCompile(`(?m)^export ((?:async )?(?:class|function|const) ([\p{L}$_][\w$]*))`)
	unknown     = regexp.MustCompile(`(?m)^(?:import|export)\b.*$`)
)

// bundle writes a module and all that it imports as one, so that a page takes one request and one version of them. Each
// becomes a function that gives what it exports.
func bundle(files fs.FS, main string) (string, error) {
	var out strings.Builder
	out.WriteString("const modules = {};\n")
	seen := make(map[string]bool)
	var add func(name string) error
	add = func(name string) error {
		if seen[name] {
			return nil
		}
		seen[name] = true
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		source := string(b)
		var exports []string
		for _, m := range append(importing.FindAllStringSubmatch(source, -1), reexporting.FindAllStringSubmatch(source, -1)...) {
			if err := add(path.Join(path.Dir(name), m[2])); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		take := func(names, from string) string {
			return fmt.Sprintf("const {%s} = modules[%q];", strings.ReplaceAll(names, " as ", ": "), path.Join(path.Dir(name), from))
		}
		source = importing.ReplaceAllStringFunc(source, func(s string) string {
			m := importing.FindStringSubmatch(s)
			return take(m[1], m[2])
		})
		source = reexporting.ReplaceAllStringFunc(source, func(s string) string {
			m := reexporting.FindStringSubmatch(s)
			for _, export := range strings.Split(m[1], ",") {
				exports = append(exports, fmt.Sprintf("%[1]s: modules[%[2]q].%[1]s", strings.TrimSpace(export), path.Join(path.Dir(name), m[2])))
			}
			return ""
		})
		for _, m := range exporting.FindAllStringSubmatch(source, -1) {
			exports = append(exports, m[2])
		}
		source = exporting.ReplaceAllString(source, "$1")
		if line := unknown.FindString(source); line != "" {
			return fmt.Errorf("%s: can't bundle %q", name, line)
		}
		fmt.Fprintf(&out, "modules[%q] = (() => {\n%s\nreturn { %s };\n})();\n", name, source, strings.Join(exports, ", "))
		return nil
	}
	if err := add(main); err != nil {
		return "", err
	}
	return out.String(), nil
}
