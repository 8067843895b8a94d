// address is an HTTP server that returns the address of the client, like the
// "what is my address" services on the Internet.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
)

func main() {
	listen := flag.String("listen", ":8080", "where to listen")
	flag.Parse()

	var mutex sync.Mutex
	counts := map[string]int{}
	mux := http.NewServeMux()
	handle := func(pattern string, answer func(http.ResponseWriter, string)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			host, _, err := net.SplitHostPort(r.RemoteAddr)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			mutex.Lock()
			counts[host]++
			mutex.Unlock()
			log.Print(host, " ", r.Method, " ", r.URL)
			answer(w, host)
		})
	}
	handle("GET /{$}", func(w http.ResponseWriter, host string) { fmt.Fprintln(w, host) })
	// The fields that services with this interface have.
	handle("GET /json", func(w http.ResponseWriter, host string) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"ip":%q,"country":"Testland","region_name":"Somewhere","city":"Nowhere"}`+"\n", host)
	})
	mux.HandleFunc("GET /count", func(w http.ResponseWriter, _ *http.Request) {
		mutex.Lock()
		defer mutex.Unlock()
		var lines []string
		for host, count := range counts {
			lines = append(lines, fmt.Sprintf("%s %d\n", host, count))
		}
		slices.Sort(lines)
		fmt.Fprint(w, strings.Join(lines, ""))
	})
	log.Fatal(http.ListenAndServe(*listen, mux))
}
