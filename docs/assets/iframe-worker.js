// Browsers start no worker for a page that is opened from disk. There the search's script runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.IFrameWorker = class extends EventTarget { // the name by which the search knows where it runs
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      const inner = frame.contentWindow;
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      inner.importScripts = async (...files) => {
        for (const file of files) await this.load(inner, file);
      };
      this.inner = inner;
      this.ready = this.load(inner, url);
    }

    load(inner, url) {
      return new Promise((resolve, reject) => {
        const script = Object.assign(inner.document.createElement("script"), { src: url, onload: resolve, onerror: reject });
        inner.document.body.append(script);
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
  window.Worker = window.IFrameWorker;
}
