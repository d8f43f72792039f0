"""Photographs that are predicted once, and then shown, measured and written at any threshold: for app.py."""

import pickle
import re
import shutil
import tempfile
from pathlib import Path

from vessels import UserError
from vessels.data.images import read_photograph
from vessels.prediction import folders, photographs
from vessels.prediction.maps import predict_photograph


class Session:
    """Photographs in a folder of their own, and what is predicted of them.

    Args:
        uploads: Files, which are moved into the folder.
        root: Where the folder is made.
    """

    def __init__(self, uploads, root):
        self.folder = Path(tempfile.mkdtemp(dir=root))
        for number, upload in enumerate(uploads):  # a folder for each, as two may have one name
            (self.folder / f"{number:04}").mkdir()
            shutil.move(upload, self.folder / f"{number:04}")

    def close(self):
        """Deletes all files. A prediction under way ends, as it finds no more photographs."""
        shutil.rmtree(self.folder)

    def photographs(self):
        """The uploads, in order: list of `Path`."""
        return sorted(path for path in self.folder.glob("????/*") if path.is_file())

    def predict(self, model, widths):
        """Yields `(name, error)` of each photograph that is done: a str, and None or the error as predict.py prints it.

        `widths`: as in `maps.predict_photograph`.
        """
        def answer(path):
            try:
                with photographs.opencv_errors(path):
                    image = read_photograph(path)
                    prediction = predict_photograph(model, image, widths)
            except UserError as error:
                return path.name, self.public(error)
            if path.exists():
                path.parent.with_suffix(".pickle").write_bytes(pickle.dumps((image, prediction)))
            return path.name, None

        uploads = self.photographs()
        try:
            for _, answered in folders.as_finished(answer, uploads and folders.collect(uploads)):
                yield answered
        except UserError as error:  # two have one name
            yield "", self.public(error)

    def public(self, error):
        """The message of an error, without the folders of this computer: str."""
        return re.sub(rf"{re.escape(str(self.folder))}.\d{{4}}.", "", str(error))

    def predicted(self):
        """The photographs without an error, in order: list of `Path`."""
        return [path for path in self.photographs() if path.parent.with_suffix(".pickle").exists()]

    def result(self, path, options):
        """`(image, images, row)` of one of `predicted`, see `photographs.result_of`."""
        image, prediction = pickle.loads(path.parent.with_suffix(".pickle").read_bytes())
        return image, *photographs.result_of(image, prediction, options)

    def write(self, options, made):
        """Writes what predict.py writes into a new folder.

        Args:
            options: A `photographs.Options`.
            made: As in `folders.Table`.

        Returns:
            list of `Path`: the table and the images, of several photographs in one ZIP file.
        """
        folder = Path(tempfile.mkdtemp(dir=self.folder)) / "vessels"
        table = folders.Table(folder, photographs.HEADER, made)
        writer = photographs.Writer(None, options, table)
        for path in self.predicted():
            image, *written = self.result(path, options)
            table.append(writer.write(path, folders.identity(image), *written) | {"file": path.name})
        if len(self.predicted()) == 1:
            return sorted(folder.iterdir())
        return [table.path, Path(shutil.make_archive(str(folder), "zip", folder))]
