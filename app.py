"""A page to drop photographs of the retina on, which shows and measures their vessels.

    pip install -r requirements-app.txt
    python app.py                              # then open http://127.0.0.1:7860
    GRADIO_SERVER_PORT=8000 python app.py      # another port; GRADIO_SERVER_NAME=0.0.0.0 lets other computers in

ONNX Runtime runs the general network, and everything is done as by predict.py. No other host is asked for anything.
One photograph is predicted at a time, while others wait. Photographs and results are deleted when their page is closed.
"""

import os
import sys
import tempfile
from pathlib import Path

try:
    import gradio as gr
    from starlette.middleware import Middleware
except ImportError as error:
    sys.exit(f"error: {error}: pip install -r requirements-app.txt")
from PIL import Image

from vessels import UserError, exit_code
from vessels.data.fov import Widths
from vessels.prediction import load_onnx, photographs
from vessels.prediction.command import SCALES
from vessels.prediction.measures import UNITS
from vessels.prediction.session import Session

WEIGHTS = Path(__file__).parent / "weights/any_rsan.onnx"
SHOWN = 1600  # longer side in pixels of the pictures on the page; its files have the photograph's own size
PROGRESS = gr.Progress()
NARROW = "td, th {padding: .4em !important; overflow-wrap: normal !important; word-break: normal !important}"
POLICY = (b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
          b"img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:")


def same_host(app):
    """Middleware that forbids browsers to ask any other host than `app`."""
    async def answer(scope, receive, send):
        async def send_policy(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, send_policy)

    return answer


class Desk:
    """Answers pages; their files are in `root`, a folder."""

    def __init__(self, root):
        self.root, self.sessions, self.network = root, {}, load_onnx(WEIGHTS)
        self.widths = Widths.of_record(self.network.record)

    def close(self, request: gr.Request):
        if session := self.sessions.pop(request.session_hash, None):
            session.close()

    def session(self, request):
        if request.session_hash not in self.sessions:
            raise gr.Error("no photographs: drop some (they are deleted when the connection breaks)")
        return self.sessions[request.session_hash]

    def options(self, threshold, microns, degrees):
        for number, (unit, low, high) in zip((microns, degrees), SCALES, strict=True):
            if number and not low <= number <= high:
                raise gr.Error(f"{unit}: must be {low} to {high}, got {number}", print_exception=False)
        if microns and degrees:
            raise gr.Error("give micrometres a pixel or degrees, not both", print_exception=False)
        return photographs.Options(self.widths, threshold, False, microns, degrees)

    def take(self, request: gr.Request, uploads):
        """Takes uploaded files instead of those that the page had."""
        self.close(request)
        self.sessions[request.session_hash] = Session(uploads, self.root)

    def predict(self, request: gr.Request, progress=PROGRESS):
        """Predicts the photographs of a page. Returns what `drop`, `chosen` and `errors` become."""
        session = self.session(request)
        answers = session.predict(self.network, self.widths)
        answers = progress.tqdm(answers, total=len(session.photographs()), unit="photographs")
        errors = [error for _, error in answers if error]
        names = [path.name for path in session.predicted()]
        return (None, gr.update(choices=names, value=(names or [None])[0], visible=len(names) > 1),
                gr.update(value="\n".join(errors), visible=bool(errors)))

    def show(self, request: gr.Request, chosen, *settings):
        """What `pictures` and `table` become."""
        paths = [] if chosen is None else self.session(request).predicted()[chosen:]
        if not paths:  # others were dropped meanwhile
            return None, None
        image, images, row = self.session(request).result(paths[0], self.options(*settings))
        folder = Path(tempfile.mkdtemp(dir=paths[0].parent))  # a new name, as browsers keep pictures
        pictures = folder / "photograph.jpg", folder / "vessels.jpg"
        for file, array in zip(pictures, (image, images["overlay"]), strict=True):
            picture = Image.fromarray(array)
            picture.thumbnail((SHOWN, SHOWN))
            picture.save(file, quality=90)
        warning = f"**Warning:** {row['warning']}\n" if row["warning"] else ""
        rows = [warning, "| measure | value | unit |", "| - | - | - |"]
        rows += [f"| {name} | {row[name]} | {unit} |" for name, unit in UNITS.items() if name in row]
        return pictures, "\n".join(rows)

    def write(self, request: gr.Request, *settings):
        options = self.options(*settings)
        made = options.made(WEIGHTS, self.network.record)
        return list(map(str, self.session(request).write(options, made)))


def build(desk):
    """The page, a `gr.Blocks`."""
    with gr.Blocks(title="Vessels of the retina", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.Markdown("# Vessels in photographs of the retina\nFor research, not for diagnosis. Photographs stay on the "
                    "computer that runs this page, and are deleted when the page is closed. JPEG, PNG, TIFF, GIF, BMP "
                    "or PPM, of any bit depth, up to 40 megapixels.")
        with gr.Row():
            with gr.Column(min_width=320):
                drop = gr.File(label="Photographs", file_count="multiple", height=160)
                errors = gr.Textbox(label="Errors", visible=False)
                chosen = gr.Dropdown(label="Photograph", type="index", visible=False)
                threshold = gr.Slider(0.01, 0.99, desk.network.threshold, step=0.01, label="Threshold",
                                      info="probability from which a pixel counts as vessel")
                gr.Markdown("One of these adds lengths in millimetres and widths in micrometres:")
                microns, degrees = (gr.Number(None, label=unit) for unit, _, _ in SCALES)
            with gr.Column(min_width=320, scale=2):
                pictures = gr.ImageSlider(label="Photograph and vessels", interactive=False)
                table = gr.Markdown()
                write = gr.Button("Make files: maps, masks, overlays, table")
                files = gr.File(label="Files", interactive=False, height=260)
        settings = [threshold, microns, degrees]
        show = {"fn": desk.show, "inputs": [chosen, *settings], "outputs": [pictures, table],
                "show_progress": "hidden", "concurrency_limit": 2}
        drop.upload(desk.take, drop, None, queue=False).success(
            desk.predict, None, [drop, chosen, errors], concurrency_limit=1).then(**show)
        changes = chosen.input, threshold.change, microns.submit, microns.blur, degrees.submit, degrees.blur
        gr.on(changes, trigger_mode="always_last", **show)
        write.click(desk.write, settings, files, concurrency_limit=1)
        page.unload(desk.close)
    return page.queue(max_size=20)


def main():
    with tempfile.TemporaryDirectory(prefix="rsan-") as root:
        os.environ |= {"GRADIO_TEMP_DIR": root, "GRADIO_ANALYTICS_ENABLED": "False"}
        page = build(Desk(root))
        try:
            page.launch(share=False, ssr_mode=False, max_file_size="256mb", footer_links=[], css=NARROW,
                        app_kwargs={"middleware": [Middleware(same_host)]})
        except OSError as error:
            raise UserError(f"{error}; set GRADIO_SERVER_PORT to a free port") from None


if __name__ == "__main__":
    sys.exit(exit_code(main))
