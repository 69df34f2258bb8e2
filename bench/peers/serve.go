// A peer of bench/serve.py: the files of a folder by http.ServeContent, which sends them by sendfile.
package main

import (
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
)

func main() {
	folder := os.Args[1]
	get := func(answer http.ResponseWriter, request *http.Request) {
		file, err := os.Open(filepath.Join(folder, filepath.Base(request.URL.Path)))
		if err != nil {
			http.NotFound(answer, request)
			return
		}
		defer file.Close()
		about, err := file.Stat()
		if err != nil {
			http.Error(answer, err.Error(), http.StatusInternalServerError)
			return
		}
		http.ServeContent(answer, request, about.Name(), about.ModTime(), file)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(http.Serve(listener, http.HandlerFunc(get)))
}
